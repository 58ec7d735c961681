"""Which challenger answers a share of the requests.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("history", sa.Column("canary", sa.Integer(), nullable=True))
