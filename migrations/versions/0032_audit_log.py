"""The audit log."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0032"
down_revision: str | None = "0031"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("user_id", sa.String(64)),
        sa.Column("user_name", sa.String(80), server_default="", nullable=False),
        sa.Column("address", sa.String(64), server_default="", nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("subject_id", sa.String(64)),
        sa.Column("subject", sa.String(200), server_default="", nullable=False),
        sa.Column("detail", sa.String(200), server_default="", nullable=False),
        sa.Column("num_times", sa.Integer(), server_default="1", nullable=False),
        sa.Column("failure_key", sa.String(80)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
        sa.UniqueConstraint("failure_key", name=op.f("uq_audit_entry_failure_key")),
    )
    op.create_index(op.f("ix_audit_entry_at"), "audit_entry", ["at"])
    op.create_index(op.f("ix_audit_entry_action_id"), "audit_entry", ["action", "id"])


def downgrade() -> None:
    op.drop_table("audit_entry")
