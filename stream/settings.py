"""Every knob, its default and unit, in one table.

Order: command-line flag, then `DRIFTLINE_<NAME>`, then `driftline.toml`, then the default here.
`KAFKA_BOOTSTRAP_SERVERS` is honoured where `DRIFTLINE_BOOTSTRAP_SERVERS` is not set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stream.core.processor import CoreSettings
from stream.errors import ConfigurationError
from stream.security import Connection, shown
from stream.topics import Names, Stage

TOML_FILE = Path("driftline.toml")


class Settings(Connection, BaseSettings):
    """Immutable; read once where a process starts, handed on from there."""

    model_config = SettingsConfigDict(
        env_prefix="DRIFTLINE_",
        frozen=True,
        extra="forbid",
        toml_file=TOML_FILE,
        populate_by_name=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    # Topics; how brokers are reached is in `stream.security`
    topic_prefix: str = Field(default="driftline", pattern=r"^[a-zA-Z0-9-]+$", max_length=100)
    partitions: int = Field(default=4, ge=1, le=1024, description="of every topic, when it is made")
    replication_factor: int = Field(default=1, ge=1, le=9)
    partitioner: Literal["murmur2", "crc32"] = Field(
        default="murmur2",
        description="what producers use: Java and aiokafka murmur2, librdkafka crc32",
    )
    retention_hours: float = Field(
        default=24 * 60, ge=-1, description="of topics that are not compacted; -1 is for ever"
    )
    embedded_broker: bool = Field(
        default=False,
        description="the broker is librdkafka's in-process one: complete checkpoints, no isolation",
    )
    # Time
    clock: Literal["append", "event"] = Field(
        default="append",
        description="append: the broker stamps records; event: a replayer does, in event time",
    )
    max_late_seconds: float = Field(
        default=30 * 86_400, gt=0, description="event time older than the record's clock is refused"
    )
    max_ahead_seconds: float = Field(default=300, ge=0)
    # Delivery
    commit_interval_ms: int = Field(
        default=100,
        ge=1,
        description="of score, at least this; monitor and evaluate: twice in a summary interval",
    )
    commit_interval_per_partition_ms: int = Field(default=8, ge=0)
    summary_interval_ms: int = Field(default=1000, ge=10)
    session_timeout_seconds: float = Field(default=10, ge=6)
    transaction_timeout_ms: int = Field(default=15_000, ge=1000)
    shed_shadows_lag: int = Field(
        default=200_000,
        ge=0,
        description="with more requests waiting in a partition shadows do not predict; 0: always",
    )
    slow_model_ms: float = Field(
        default=1.0,
        ge=0,
        description="a row; models that take longer may wait, that others need not; 0: none waits",
    )
    queue_batches: int = Field(default=4, ge=1, description="fetched batches held per partition")
    drain_seconds: float = Field(default=8, gt=0, description="from SIGTERM to a clean exit")
    stall_seconds: float = Field(
        default=30,
        ge=2,
        description="a stage that stands still for so long though there is work ends itself",
    )
    lost_records: Literal["halt", "skip"] = Field(
        default="halt", description="when retention took what was not applied: halt, or skip it"
    )
    # Records
    max_event_bytes: int = Field(
        default=262_144, ge=1024, description="larger ones are dead-lettered"
    )
    max_record_bytes: int = Field(
        default=12_582_912, ge=1_048_588, description="largest the topics hold"
    )
    unknown_model_wait_seconds: float = Field(default=5, ge=0)
    # Registry and artefacts
    registry_url: str = Field(default="sqlite:///driftline.db", description="SQLAlchemy URL")
    artefact_url: str = Field(
        default="file:artefacts", description="where artefacts lie, for all workers"
    )
    max_artefact_bytes: int = Field(default=268_435_456, ge=1024)
    held_versions: int = Field(
        default=200,
        ge=1,
        description="a worker of score loads; over it those of models unasked for a minute go",
    )
    # Trust
    signing_key_file: str | None = Field(
        default=None,
        description="signs commands (evaluate), lifecycle (trainer, people); `driftline keys new`",
    )
    command_keys: tuple[str, ...] = Field(
        default=(), description="files of keys whose commands are obeyed; none: anybody's are"
    )
    lifecycle_keys: tuple[str, ...] = Field(
        default=(), description="files of keys whose lifecycle counts; none: anybody's does"
    )
    # Schemas
    schema_registry_url: str | None = Field(
        default=None, description="Confluent's, or one that speaks as it does: `driftline bridge`"
    )
    schema_registry_user: str | None = Field(default=None, description="by HTTP basic auth")
    schema_registry_password: SecretStr | None = None
    schema_registry_ca_file: str | None = Field(
        default=None, description="authorities that it is checked by; else those of certifi"
    )
    # Training
    fits: int = Field(
        default=1, ge=1, le=64, description="retrains that one trainer runs at a time"
    )
    fit_memory_mb: int = Field(default=4096, ge=256, description="a fit that needs more is ended")
    dask_scheduler: str | None = Field(
        default=None,
        # Whoever can speak to a scheduler can have its workers run anything.
        pattern=r"^tls://[^/]+$|^tcp://(localhost|127\.[0-9.]+|\[::1\]):[0-9]+$",
        description="fits run on this Dask cluster: tls://HOST:PORT (tcp:// on loopback only)",
    )
    learner_modules: tuple[str, ...] = Field(
        default=(), description="packages that specs may name learners of (a JSON list)"
    )
    # Alerts
    alert_sinks: str = Field(
        default="alerts.toml", description="the file that says where `driftline alerts` sends them"
    )
    # Doors
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="of /livez, /readyz, /metrics; none by default"
    )
    metrics_host: str = Field(default="127.0.0.1", description="the address it listens on")
    # Console
    console_host: str = Field(default="127.0.0.1", description="the address the console listens on")
    console_port: int = Field(default=8420, ge=0, le=65535)
    console_origins: tuple[str, ...] = Field(
        default=(),
        description="further origins it is reached by, as `https://driftline.example.org`",
    )
    console_anonymous: Literal["read", "none"] = Field(
        default="read", description="what whoever is on this machine may do without a token"
    )
    console_url: str = Field(
        default="sqlite:///driftline-console.db", description="SQLAlchemy URL of its history"
    )
    console_points: int = Field(
        default=5000, ge=100, description="windows kept of each model and kind of window"
    )
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def names(self) -> Names:
        return Names(self.topic_prefix)

    def commit_interval_seconds(self, stage: Stage, partitions: int) -> float:
        """From one transaction to the next of a worker that owns so many.

        One costs a broker some 40 ms of CPU, and 3 ms more for each partition with something in it
        (docs/scaling.md), so it would have nothing left if workers of many partitions did not wait.
        What monitor and evaluate say waits for the next summary anyhow, and small transactions are
        most of what a broker has to do: these stages commit twice in a summary interval.
        """
        least_ms = [self.commit_interval_ms, self.commit_interval_per_partition_ms * partitions]
        if stage != "score":
            least_ms.append(self.summary_interval_ms // 2)
        return max(least_ms) / 1000

    @property
    def core(self) -> CoreSettings:
        return CoreSettings(
            clock=self.clock,
            partitioner=self.partitioner,
            unknown_model_wait_ms=round(self.unknown_model_wait_seconds * 1000),
            summary_interval_ms=self.summary_interval_ms,
            max_event_bytes=self.max_event_bytes,
            max_late_ms=round(self.max_late_seconds * 1000),
            max_ahead_ms=round(self.max_ahead_seconds * 1000),
            shed_shadows_lag=self.shed_shadows_lag,
            slow_model_ms=self.slow_model_ms,
        )

    def plain(self) -> dict[str, Any]:
        """Every setting as plain data, secrets revealed: for a child process, never for a log."""
        secrets = {name: value for name, value in self if isinstance(value, SecretStr)}
        return self.model_dump(mode="json") | {
            name: secret.get_secret_value() for name, secret in secrets.items()
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(**flags: Any) -> Settings:
    """Settings as this process should see them; flags that are None count as not given.

    Raises:
        ConfigurationError: a setting is unknown or out of range.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        lines = "; ".join(map(_line, error.errors()))
        raise ConfigurationError(
            f"settings: {lines}. `driftline config show` lists them all."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"settings: {TOML_FILE}: {error}") from error


def _line(error: Any) -> str:
    """What is wrong with one setting. What was given is told only where it can be no secret."""
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(said)
    name, given = str(error["loc"][0]), error["input"]
    field = Settings.model_fields.get(name)
    secret = field is None or "Secret" in str(field.annotation)
    told = "" if secret or not isinstance(given, str | int | float) else shown(name, given)
    return f"{'.'.join(map(str, error['loc']))}: {said}" + (f" (got {told!r})" if told else "")
