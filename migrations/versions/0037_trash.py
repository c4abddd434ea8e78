"""The trash: when rows were deleted."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0037"
down_revision: str | None = "0034"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("corpus", "tokenizer", "checkpoint", "base_model", "job")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("deleted_at", sa.DateTime(timezone=True)))
        op.create_index(f"ix_{table}_deleted_at", table, ["deleted_at"])


def downgrade() -> None:
    """What is in the trash is visible again."""
    for table in TABLES:
        op.drop_index(f"ix_{table}_deleted_at", table)
        op.drop_column(table, "deleted_at")
