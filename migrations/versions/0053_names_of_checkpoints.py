"""Names, tags and notes of checkpoints."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0053"
down_revision: str | None = "0050"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("checkpoint", sa.Column("name", sa.Text(), server_default="", nullable=False))
    op.add_column("checkpoint", sa.Column("tags", JSONB(), server_default="[]", nullable=False))
    op.add_column("checkpoint", sa.Column("notes", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Names, tags and notes are lost."""
    for column in ("notes", "tags", "name"):
        op.drop_column("checkpoint", column)
