"""The sinks as a person configures them: one TOML file, every knob with its default and unit.

Nothing secret is in the file: it says in which environment variable, or in which file, a secret
lies. docs/ALERTS.md shows an example of every kind.
"""

from __future__ import annotations

import base64
import os
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from consumers.sinks.wording import check_json, check_text
from stream.errors import ConfigurationError
from stream.hosts import is_loopback

Severity = Literal["info", "warning", "critical"]
Event = Literal["opened", "updated", "acknowledged", "snoozed", "resolved"]

PAGERDUTY: Final = "https://events.pagerduty.com/v2/enqueue"
MOST_SECRET_BYTES: Final = 10_000
#: Standard Webhooks: what a secret begins with, and how many bytes it may have.
WHSEC, LEAST_KEY_BYTES, MOST_KEY_BYTES = "whsec_", 24, 64


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(Strict):
    """Where a secret lies: exactly one of an environment variable and a file."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_no_text(cls, given: object) -> object:
        if isinstance(given, str):
            raise ValueError(
                'secrets do not stand here: say where it lies, { env = "NAME" } or { file = "..." }'
            )
        return given

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("name one of env and file")
        return self

    def read(self) -> str:
        """
        Raises:
            ConfigurationError: it is not there, or empty.
        """
        if self.env is not None:
            value, where = os.environ.get(self.env, ""), f"the variable {self.env}"
        else:
            value, where = _content(str(self.file)), str(self.file)
        if not value.strip():
            raise ConfigurationError(f"{where} should hold a secret, and is empty")
        return value.strip()


class BaseSink(Strict):
    """What every sink has. Filters: an alert must pass each of them.

    Attributes:
        events: snoozed, acknowledged and resolved are what they say; opened also when it came back
            or its snooze is over; updated: more is known of an open alert.
        problems, models: patterns as in a shell, such as "bad-artefact:*"; a match in any will do.
        begin: where a sink begins that was never served: with alerts to come, or with all that the
            topic holds.
        retry_for_seconds: from when it was taken from the topic; then it is a dead letter.
    """

    events: tuple[Event, ...] = ("opened", "acknowledged", "resolved")
    severities: tuple[Severity, ...] = ("info", "warning", "critical")
    problems: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    begin: Literal["now", "beginning"] = "now"
    timeout_seconds: float = Field(default=10, gt=0, le=120, description="of one attempt, in all")
    retry_for_seconds: float = Field(default=4 * 3600, ge=0, le=7 * 86_400)
    first_retry_seconds: float = Field(default=1, gt=0, le=3600, description="doubles each time")
    longest_retry_seconds: float = Field(default=300, gt=0, le=3600)

    def secrets(self) -> tuple[Secret, ...]:
        """All that must never be shown."""
        return ()


class HttpSink(BaseSink):
    """What every sink has that is reached by HTTP."""

    ca_file: str | None = Field(default=None, description="PEM; none: the system's authorities")
    plain_http: bool = Field(
        default=False, description="http:// also beyond this machine, where others may read"
    )
    proxy: str | None = None

    @field_validator("ca_file")
    @classmethod
    def _is_pem(cls, file: str | None) -> str | None:
        return _ca_file(file)

    def checked_url(self, url: str) -> str:
        """
        Raises:
            ConfigurationError: it is none, or would be readable on the way.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("the url must begin with https:// and name a host")
        if parts.scheme == "http" and not (self.plain_http or is_loopback(parts.netloc)):
            raise ConfigurationError("the url must begin with https://, or set plain_http = true")
        return url


class Webhook(HttpSink):
    """A POST of the alert as a CloudEvent, signed as Standard Webhooks say.

    Attributes:
        signing: what signs it; several while one is replaced by another.
        body: JSON to send instead, with $names in its texts: Teams, Discord, Mattermost.
    """

    kind: Literal["webhook"]
    url: str | Secret
    signing: tuple[Secret, ...] = ()
    headers: dict[str, str | Secret] = {}
    body: str | None = None

    @field_validator("body")
    @classmethod
    def _is_json(cls, body: str | None) -> str | None:
        return None if body is None else check_json(body)

    def keys(self) -> list[bytes]:
        """
        Raises:
            ConfigurationError: one is no secret of Standard Webhooks.
        """
        return [webhook_key(secret.read()) for secret in self.signing]

    def secrets(self) -> tuple[Secret, ...]:
        named = (self.url, *self.headers.values())
        return (*self.signing, *(one for one in named if isinstance(one, Secret)))


class Slack(HttpSink):
    """Slack's incoming webhooks, and whatever takes the same: {"text": ...} in mrkdwn."""

    kind: Literal["slack"]
    url: Secret
    text: str = "*$title*\n$sentence\n$verdict, since $opened$handled\n$link"

    @field_validator("text")
    @classmethod
    def _is_template(cls, text: str) -> str:
        return check_text(text)

    def secrets(self) -> tuple[Secret, ...]:
        return (self.url,)


class PagerDuty(HttpSink):
    """PagerDuty's Events API v2: an alert is an incident by its id, which its resolving closes."""

    kind: Literal["pagerduty"]
    routing_key: Secret
    url: str = PAGERDUTY
    summary: str = "$title: $sentence"

    @field_validator("summary")
    @classmethod
    def _is_template(cls, text: str) -> str:
        return check_text(text)

    def secrets(self) -> tuple[Secret, ...]:
        return (self.routing_key,)


class Email(BaseSink):
    """A mail by SMTP; TLS unless the server is on this machine."""

    kind: Literal["email"]
    host: str
    port: int = Field(default=587, ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: str | None = None
    username: str | None = None
    password: Secret | None = None
    sender: str
    to: Annotated[tuple[str, ...], Field(min_length=1, max_length=50)]
    subject: str = "$title"
    text: str = (
        "$sentence\n\n$title\n$verdict, since $opened$handled\n\n"
        "alert $alert_id\nevidence $evidence\n$link"
    )

    @field_validator("subject", "text")
    @classmethod
    def _is_template(cls, text: str) -> str:
        return check_text(text)

    @field_validator("ca_file")
    @classmethod
    def _is_pem(cls, file: str | None) -> str | None:
        return _ca_file(file)

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError('tls = "none" is for a server on this machine')
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        return self

    def secrets(self) -> tuple[Secret, ...]:
        return () if self.password is None else (self.password,)


class Command(BaseSink):
    """A program: the alert as JSON on its standard input; exit code 0 is delivered.

    Attributes:
        argv: program and arguments; no shell looks at them, and nothing of the alert is in them.
        environment: variables it is given beside PATH, HOME, LANG and TZ.
    """

    kind: Literal["command"]
    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    environment: tuple[str, ...] = ()
    stdin: str | None = Field(default=None, description="JSON to give instead, with $names")

    @field_validator("stdin")
    @classmethod
    def _is_json(cls, body: str | None) -> str | None:
        return None if body is None else check_json(body)


Sink = Webhook | Slack | PagerDuty | Email | Command
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]


class Sinks(Strict):
    """The whole file.

    Attributes:
        console_url: where people find the console; alerts then carry a link to their model.
        sinks: by name. The name is that of the sink's consumer group: a new one begins anew.
    """

    console_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    sinks: Annotated[
        dict[Name, Annotated[Sink, Field(discriminator="kind")]],
        Field(min_length=1, max_length=50),
    ]


def load(file: str | Path) -> Sinks:
    """
    Raises:
        ConfigurationError: there is no such file, or something in it is wrong; it names no value.
    """
    try:
        return Sinks.model_validate(tomllib.loads(Path(file).read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(
            f"the alert sinks are read from {file}: {error.strerror}; docs/ALERTS.md shows one, "
            "DRIFTLINE_ALERT_SINKS names another"
        ) from error
    except ValidationError as error:
        lines = "; ".join(_line(one) for one in error.errors())
        raise ConfigurationError(f"{file}: {lines}") from None
    except ValueError as error:  # TOML's and Unicode's
        raise ConfigurationError(f"{file}: {error}") from error


def webhook_key(secret: str) -> bytes:
    """The key in a secret of Standard Webhooks, `whsec_` and base64.

    >>> len(webhook_key("whsec_" + "A" * 32))
    24

    Raises:
        ConfigurationError: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(WHSEC), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(WHSEC) or not LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        raise ConfigurationError(
            f"a signing secret is {WHSEC} and {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes in "
            "base64, as `openssl rand -base64 32` makes them"
        )
    return key


def revealed(given: str | Secret) -> str:
    return given.read() if isinstance(given, Secret) else given


def _line(error: Mapping[str, Any]) -> str:
    # The kind by which pydantic chose between the sinks is no part of the path in the file.
    path = [str(part) for part in error["loc"]]
    if len(path) > 2 and path[0] == "sinks":
        del path[2]
    return f"{'.'.join(path)}: {error['msg'].removeprefix('Value error, ')}"


def _ca_file(file: str | None) -> str | None:
    if file is not None:
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:
            raise ValueError(f"{file}: PEM that can be read is needed") from error
    return file


def _content(file: str) -> str:
    try:
        with Path(file).open(encoding="utf-8") as opened:
            return opened.read(MOST_SECRET_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{file} should hold a secret: {error.strerror}") from error
    except ValueError:
        raise ConfigurationError(f"{file} should hold a secret as text") from None
