"""A queued job has the job whose end frees its place."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0062"
down_revision: str | None = "0061"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("job", sa.Column("starts_after_id", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "starts_after_id")
