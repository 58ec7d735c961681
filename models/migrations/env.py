"""Run by alembic, on the connection and in the transaction that models.database opened."""

from __future__ import annotations

from alembic import context

from models.database import VERSION_TABLE
from models.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
