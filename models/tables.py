"""The registry's tables. `migrations/` makes them; a test holds the two together.

Facts are only ever inserted: models, specs, versions, decisions, history (triggers see to it).
What is live is the newest history row of a model, so (model, generation) as primary key is also
the compare-and-set: of two transitions made on one generation, one cannot be inserted.
A run is written when it begins and until it ends; an outbox row gets its `sent_ms`.

Times are milliseconds since 1970 UTC by the registry's clock. JSON is msgspec's, kept as text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

from models.runs import Candidate, DataRange
from models.spec import ModelSpec


class Json(TypeDecorator[Any]):
    """A value of one type as JSON text; what is read back is checked to be of that type."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return msgspec.json.encode(value, order="deterministic").decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(value, type=self.kind)


class Words(TypeDecorator[str]):
    """Text that any caller may send, without what PostgreSQL refuses: nulls, lone surrogates."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()


class Number(TypeDecorator[int]):
    """An integer that any caller may send, cut to 64 bits: it is only ever shown."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return None if value is None else max(-(2**63), min(value, 2**63 - 1))


# SQLite numbers rows by itself only in a column of exactly its own type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
_Plain = Json(dict[str, Any])

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

models: Final = Table(
    "models",
    metadata,
    Column("name", Words, primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("who", Words, nullable=False),
)

specs: Final = Table(
    "specs",
    metadata,
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("spec", Json(ModelSpec), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("who", Words, nullable=False),
)

# Every training run, from its begin to its verdict.
runs: Final = Table(
    "runs",
    metadata,
    Column("run_id", _Id, primary_key=True),
    Column("model", ForeignKey("models.name"), nullable=False, index=True),
    Column("cause", Words, nullable=False),
    Column("command_id", Words, unique=True),
    Column("alert_id", Words),
    Column("who", Words, nullable=False),
    Column("evidence", _Plain, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("spec_revision", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("parameters", _Plain, nullable=False),
    Column("libraries", Json(dict[str, str]), nullable=False),
    Column("data", Json(DataRange | None), nullable=False),
    Column("candidates", Json(list[Candidate]), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    Column("verdict", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("artefact_digest", Words, nullable=False),
    Column("profile_digest", Words, nullable=False),
    ForeignKeyConstraint(["model", "spec_revision"], ["specs.model", "specs.revision"]),
)

versions: Final = Table(
    "versions",
    metadata,
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("run_id", ForeignKey("runs.run_id"), unique=True),  # a run yields at most one version
    Column("spec_revision", Integer, nullable=False),
    Column("artefact_url", Words, nullable=False),
    Column("artefact_digest", Words, nullable=False),
    Column("profile_url", Words, nullable=False),
    Column("profile_digest", Words, nullable=False),
    Column("metrics", Json(dict[str, float]), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("who", Words, nullable=False),
    ForeignKeyConstraint(["model", "spec_revision"], ["specs.model", "specs.revision"]),
)

# All that was ever asked, applied or refused. `model` may be one that does not exist.
decisions: Final = Table(
    "decisions",
    metadata,
    Column("decision_id", _Id, primary_key=True),
    Column("model", Words, nullable=False, index=True),
    Column("action", Words, nullable=False),
    Column("version", Number),
    Column("command_id", Words, unique=True),
    Column("expected_generation", Number),
    Column("who", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("evidence", _Plain, nullable=False),
    Column("decided_ms", BigInteger, nullable=False),
    Column("applied", Boolean, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("refusal", Words, nullable=False),
)

# What was live from `changed_ms` on. `newest` is the newest version registered at that moment, so
# that the whole published state can be told again from facts that never change.
history: Final = Table(
    "history",
    metadata,
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("decision_id", ForeignKey("decisions.decision_id"), nullable=False, unique=True),
    Column("champion", Integer),
    Column("challengers", Json(list[int]), nullable=False),
    Column("previous", Integer),
    Column("probation", Boolean, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("canary", Integer),
    Column("spec_revision", Integer, nullable=False),
    Column("newest", Integer, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    CheckConstraint("generation >= 1", name="generation"),
    CheckConstraint("previous IS NULL OR previous <> champion", name="previous"),
    ForeignKeyConstraint(["model", "champion"], ["versions.model", "versions.version"]),
    ForeignKeyConstraint(["model", "previous"], ["versions.model", "versions.version"]),
    ForeignKeyConstraint(["model", "spec_revision"], ["specs.model", "specs.revision"]),
    Index(None, "model", "changed_ms"),
)

# What must still be published, and when it was.
outbox: Final = Table(
    "outbox",
    metadata,
    Column("outbox_id", _Id, primary_key=True),
    Column("model", Words, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", Words, nullable=False),  # LiveState as JSON, as it was at this generation
    Column("created_ms", BigInteger, nullable=False),
    Column("sent_ms", BigInteger),
    ForeignKeyConstraint(["model", "generation"], ["history.model", "history.generation"]),
    Index("ix_outbox_pending", "sent_ms", "outbox_id"),
)

# Predictions that training leaves out: a hash of each id, see `models.erasures`.
erasures: Final = Table(
    "erasures",
    metadata,
    Column("model", ForeignKey("models.name"), primary_key=True),
    Column("digest", Words, primary_key=True),
    Column("erased_ms", BigInteger, nullable=False),
    Column("who", Words, nullable=False),
    Column("reason", Words, nullable=False),
)

FACTS: Final = ("models", "specs", "versions", "decisions", "history")
