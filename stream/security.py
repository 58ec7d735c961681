"""How every client reaches the brokers and proves who it is: one set of settings, two clients.

The stages read through aiokafka, everything else goes through librdkafka. Both get what they need
from the same fields, so that none of them can be less careful than the other. What these fields
cannot say is refused rather than given to one client only.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any, Final, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from models import masking
from stream.hosts import is_loopback, is_private
from stream.tokens import Tokens

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
#: Properties of librdkafka that fields of ours stand for, by what they begin with.
OURS: Final = ("bootstrap.servers", "security.", "sasl.", "ssl.", "enable.ssl", "metadata.broker")


class Connection(BaseModel):
    """The part of the settings that a client is made of. Secrets show in no repr and no error."""

    bootstrap_servers: str = Field(
        default="localhost:9092",
        validation_alias=AliasChoices("DRIFTLINE_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        description="Kafka brokers, host:port, comma separated",
    )
    kafka: dict[str, str] = Field(
        default_factory=dict,
        description="further librdkafka properties, for every client (JSON in the environment)",
    )
    security_protocol: Protocol = Field(
        default="PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    sasl_mechanism: Mechanism | None = Field(
        default=None, description="SCRAM-SHA-512, SCRAM-SHA-256, OAUTHBEARER or PLAIN"
    )
    sasl_username: str | None = Field(default=None, description="for SCRAM and PLAIN")
    sasl_password: SecretStr | None = Field(default=None, description="for SCRAM and PLAIN")
    sasl_oauth_url: str | None = Field(
        default=None, description="token endpoint, for OAUTHBEARER by client credentials"
    )
    sasl_oauth_client_id: str | None = Field(default=None, description="for OAUTHBEARER")
    sasl_oauth_client_secret: SecretStr | None = Field(default=None, description="for OAUTHBEARER")
    sasl_oauth_scope: str | None = Field(default=None, description="for OAUTHBEARER, if asked for")
    tls_ca_file: str | None = Field(
        default=None, description="who signed the brokers' certificates (PEM); none: the system's"
    )
    tls_certificate_file: str | None = Field(
        default=None, description="this client's certificate (PEM), where brokers ask for one"
    )
    tls_key_file: str | None = Field(default=None, description="its private key (PEM)")
    tls_key_password: SecretStr | None = Field(default=None, description="of the private key")

    @field_validator("security_protocol", "sasl_mechanism", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = list(self._wrong())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong(self) -> Iterator[str]:
        yield from self._wrong_properties()
        yield from self._wrong_sasl() if self.uses_sasl else self._stray_sasl()
        yield from self._wrong_tls() if self.uses_tls else self._stray_tls()

    def _wrong_properties(self) -> Iterator[str]:
        for name in self.kafka:
            if name.startswith(OURS):
                yield (
                    f"kafka: {name} would reach one of the two clients only: use the settings "
                    + (
                        "security_protocol, sasl_* and tls_*"
                        if name.startswith(OURS[1:5])
                        else "bootstrap_servers"
                    )
                )

    def _wrong_sasl(self) -> Iterator[str]:
        if self.sasl_mechanism is None:
            yield f"security_protocol {self.security_protocol} needs a sasl_mechanism"
            return
        oauth = self.sasl_mechanism == "OAUTHBEARER"
        named = ("sasl_username", "sasl_password")
        by_oauth = ("sasl_oauth_url", "sasl_oauth_client_id", "sasl_oauth_client_secret")
        for name in by_oauth if oauth else named:
            if getattr(self, name) is None:
                yield f"sasl_mechanism {self.sasl_mechanism} needs {name}"
        for name in named if oauth else (*by_oauth, "sasl_oauth_scope"):
            if getattr(self, name) is not None:
                yield f"{name} is not for sasl_mechanism {self.sasl_mechanism}: leave it out"
        if self.sasl_mechanism in ("PLAIN", "OAUTHBEARER") and not (
            self.uses_tls or self.on_loopback
        ):
            yield (
                f"sasl_mechanism {self.sasl_mechanism} would send its secret readable to "
                f"{self.bootstrap_servers}: set security_protocol SASL_SSL, or use SCRAM-SHA-512"
            )
        if self.sasl_oauth_url is not None and not is_private(self.sasl_oauth_url):
            yield "sasl_oauth_url must begin with https:// (http:// on loopback only)"

    def _stray_sasl(self) -> Iterator[str]:
        for name in type(self).model_fields:
            if name.startswith("sasl_") and getattr(self, name) is not None:
                wanted = "SASL_SSL" if self.uses_tls else "SASL_SSL (or SASL_PLAINTEXT)"
                yield f"{name} has no effect without security_protocol {wanted}"

    def _wrong_tls(self) -> Iterator[str]:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            yield "tls_certificate_file and tls_key_file go together: set both, or none"
        elif self.tls_key_password is not None and self.tls_key_file is None:
            yield "tls_key_password has no effect without tls_key_file"
        else:
            try:
                self.tls_context()
            except OSError as error:  # ssl.SSLError is one too
                files = [
                    f for f in (self.tls_ca_file, self.tls_certificate_file, self.tls_key_file) if f
                ]
                yield f"{', '.join(files)}: {_reason(error)}; PEM files that can be read are needed"

    def _stray_tls(self) -> Iterator[str]:
        for name in type(self).model_fields:
            if name.startswith("tls_") and getattr(self, name) is not None:
                wanted = "SASL_SSL" if self.uses_sasl else "SSL (or SASL_SSL)"
                yield f"{name} has no effect without security_protocol {wanted}"

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def on_loopback(self) -> bool:
        """Every broker named is on this machine."""
        return all(is_loopback(host) for host in self.bootstrap_servers.split(","))

    def client(self, **more: object) -> dict[str, object]:
        """Properties that every librdkafka client starts from; with secrets, so never log them."""
        named = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "ssl.ca.location": self.tls_ca_file,
            "ssl.certificate.location": self.tls_certificate_file,
            "ssl.key.location": self.tls_key_file,
            "ssl.key.password": _revealed(self.tls_key_password),
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": _revealed(self.sasl_password),
            **(self._oidc() if self.sasl_mechanism == "OAUTHBEARER" else {}),
        }
        return {**{n: v for n, v in named.items() if v is not None}, **self.kafka, **more}

    def _oidc(self) -> dict[str, str | None]:
        return {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": self.sasl_oauth_url,
            "sasl.oauthbearer.client.id": self.sasl_oauth_client_id,
            "sasl.oauthbearer.client.secret": _revealed(self.sasl_oauth_client_secret),
            "sasl.oauthbearer.scope": self.sasl_oauth_scope,
        }

    def aiokafka(self) -> dict[str, Any]:
        """The same as arguments of aiokafka's clients; without the provider of `tokens`, which
        must be of a type of aiokafka's own."""
        arguments: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.uses_tls:
            arguments["ssl_context"] = self.tls_context()
        if self.uses_sasl:
            arguments["sasl_mechanism"] = self.sasl_mechanism
        if self.sasl_username is not None:
            arguments["sasl_plain_username"] = self.sasl_username
            arguments["sasl_plain_password"] = _revealed(self.sasl_password)
        return arguments

    def tokens(self) -> Tokens | None:
        """What fetches OAuth tokens for aiokafka; librdkafka fetches its own."""
        if self.sasl_mechanism != "OAUTHBEARER":
            return None
        return Tokens(
            self.sasl_oauth_url or "",
            self.sasl_oauth_client_id or "",
            _revealed(self.sasl_oauth_client_secret) or "",
            self.sasl_oauth_scope,
            ca_file=self.kafka.get("https.ca.location"),
        )

    def tls_context(self) -> ssl.SSLContext:
        """
        Raises:
            OSError: a file is absent, no PEM, or the key is not the certificate's.
        """
        context = ssl.create_default_context(cafile=self.tls_ca_file)
        if self.tls_certificate_file is not None:
            # Without a password OpenSSL would ask for one on the terminal.
            password = _revealed(self.tls_key_password) or ""
            context.load_cert_chain(self.tls_certificate_file, self.tls_key_file, password)
        return context

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name in type(self).model_fields:
            yield name, shown(name, getattr(self, name))


def shown(name: str, value: object) -> object:
    """A setting's value as anybody may see it.

    >>> shown("registry_url", "postgresql://ann:hush@db/driftline")
    'postgresql://ann:***@db/driftline'
    >>> shown("sasl_password", SecretStr("hush")), shown("kafka", {"sasl.password": "hush"})
    ('***', {'sasl.password': '***'})
    """
    if isinstance(value, SecretStr):
        return masking.HIDDEN
    if isinstance(value, dict):
        return masking.properties(value)
    return masking.url(value) if isinstance(value, str) and name.endswith("_url") else value


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)
