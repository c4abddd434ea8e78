"""Corpora that are downloaded: the address of a file."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0040"
down_revision: str | None = "0037"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("corpus_file", sa.Column("url", sa.Text()))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("corpus_file", "url")
