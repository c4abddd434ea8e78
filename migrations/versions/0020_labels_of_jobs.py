"""Tags and notes of jobs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0020"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("job", sa.Column("tags", postgresql.JSONB(), server_default="[]", nullable=False))
    op.add_column("job", sa.Column("notes", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("job", "notes")
    op.drop_column("job", "tags")
