"""Corpora of a whole data set of a hub."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0066"
down_revision: str | None = "0065"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("corpus", sa.Column("dataset", JSONB(), server_default="{}", nullable=False))


def downgrade() -> None:
    op.drop_column("corpus", "dataset")
