"""Users are notified of the levels of their quotas that they reach."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0065"
down_revision: str | None = "0064"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "quota_level",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("quota", sa.Text(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_quota_level_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "quota", name=op.f("pk_quota_level")),
    )


def downgrade() -> None:
    op.drop_table("quota_level")
