"""Administrators put queued jobs in an order."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0063"
down_revision: str | None = "0062"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("job", sa.Column("queue_number", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "queue_number")
