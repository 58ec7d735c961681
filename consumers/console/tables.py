"""The console's own tables: a bounded past, and who may come in.

All but `tokens` and `audit` can be read again from the topics. Times are milliseconds since 1970
UTC; bodies are events as JSON, as they came.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text

from models.tables import Words

#: Of these tables. A program that knows only older ones must not write to newer ones.
SCHEMA: Final = 1
_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in an INTEGER

metadata = MetaData()

schema: Final = Table(
    "console_schema", metadata, Column("revision", Integer, primary_key=True, autoincrement=False)
)

# How far each topic was read; moved in the transaction that stores what was read.
positions: Final = Table(
    "console_positions",
    metadata,
    Column("topic", Words, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
)

# What was live, as lifecycle last said; `heard_ms` is when the model was last heard of at all.
lifecycle: Final = Table(
    "console_lifecycle",
    metadata,
    Column("model", Words, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

# Rolling performance of whole models; segments are in `newest` only.
accuracy: Final = Table(
    "console_accuracy",
    metadata,
    Column("model", Words, primary_key=True),
    Column("window", Words, primary_key=True),
    Column("end_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    Column("body", Text, nullable=False),
)

drift: Final = Table(
    "console_drift",
    metadata,
    Column("model", Words, primary_key=True),
    Column("window", Words, primary_key=True),
    Column("signal", Words, primary_key=True),
    Column("end_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    Column("psi", Float, nullable=False),
    Column("psi_noise", Float, nullable=False),
    Column("evidence", Float, nullable=False),
)

# The last word on each (kind, window, name): "version" by number, "segment" and "signal" by name.
newest: Final = Table(
    "console_newest",
    metadata,
    Column("model", Words, primary_key=True),
    Column("kind", Words, primary_key=True),
    Column("window", Words, primary_key=True),
    Column("name", Words, primary_key=True),
    Column("end_ms", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("heard_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

alerts: Final = Table(
    "console_alerts",
    metadata,
    Column("alert_id", Words, primary_key=True),
    Column("model", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_console_alerts_model", "model", "updated_ms"),
    Index("ix_console_alerts_state", "state", "updated_ms"),
)

commands: Final = Table(
    "console_commands",
    metadata,
    Column("command_id", Words, primary_key=True),
    Column("model", Words, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_console_commands_model", "model", "issued_ms"),
)

# Retrains that something asked for and evaluate held back; the id is made of what tells them apart.
held: Final = Table(
    "console_held",
    metadata,
    Column("held_id", Words, primary_key=True),
    Column("model", Words, nullable=False),
    Column("held_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_console_held_model", "model", "held_ms"),
)

# Hashes only: what is stored here opens no door.
tokens: Final = Table(
    "console_tokens",
    metadata,
    Column("name", Words, primary_key=True),
    Column("role", Words, nullable=False),
    Column("digest", Words, nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

# One row for everything that was asked of the console, done or refused.
audit: Final = Table(
    "console_audit",
    metadata,
    Column("audit_id", _Id, primary_key=True),
    Column("asked_ms", BigInteger, nullable=False),
    Column("who", Words, nullable=False),
    Column("role", Words, nullable=False),
    Column("address", Words, nullable=False),
    Column("action", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("version", BigInteger),
    Column("reason", Words, nullable=False),
    Column("outcome", Words, nullable=False),  # asked, done, refused, failed
    Column("detail", Words, nullable=False),
)
