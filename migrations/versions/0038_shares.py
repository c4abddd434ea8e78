"""What users share with others."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0038"
down_revision: str | None = "0042"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "share",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_share_owner_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_share_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_share"),
        sa.UniqueConstraint("subject_id", "user_id", name="uq_share_subject_id_user_id"),
    )
    op.create_index("ix_share_owner_id", "share", ["owner_id"])
    op.create_index("ix_share_user_id", "share", ["user_id"])
    op.create_index(
        "uq_share_everyone", "share", ["subject_id"], unique=True, postgresql_where=sa.text("user_id IS NULL")
    )


def downgrade() -> None:
    op.drop_table("share")
