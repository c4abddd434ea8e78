"""A job that is to go over its data so many times has no number of steps until its first attempt has counted them."""

from collections.abc import Sequence

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.alter_column("job", "max_steps", nullable=True)


def downgrade() -> None:
    op.execute("UPDATE job SET max_steps = greatest(step, 1) WHERE max_steps IS NULL")
    op.alter_column("job", "max_steps", nullable=False)
