"""Tags and notes of corpora, base models and tokenizers."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0046"
down_revision: str | None = "0043"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("corpus", "base_model", "tokenizer")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("tags", JSONB(), server_default="[]", nullable=False))
        op.add_column(table, sa.Column("notes", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Tags and notes are lost."""
    for table in TABLES:
        op.drop_column(table, "notes")
        op.drop_column(table, "tags")
