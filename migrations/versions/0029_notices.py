"""Notices of users: their choices, what they are notified of, and what is delivered."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0029"
down_revision: str | None = "0028"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("job", sa.Column("is_notified", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.create_table(
        "notice_settings",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), server_default="en", nullable=False),
        sa.Column("panel_url", sa.Text(), server_default="", nullable=False),
        sa.Column("muted", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("pending_email", sa.Text(), nullable=True),
        sa.Column("code_sha256", sa.Text(), nullable=True),
        sa.Column("code_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unsubscribe_code", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_notice_settings_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_notice_settings")),
        sa.UniqueConstraint("code_sha256", name=op.f("uq_notice_settings_code_sha256")),
        sa.UniqueConstraint("unsubscribe_code", name=op.f("uq_notice_settings_unsubscribe_code")),
    )
    op.create_table(
        "notice_service",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_notice_service_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice_service")),
    )
    op.create_index(op.f("ix_notice_service_user_id"), "notice_service", ["user_id"])
    op.create_table(
        "user_notice",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("values", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("is_listed", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("is_for_browser", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_user_notice_user_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_user_notice_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_notice")),
    )
    op.create_index(op.f("ix_user_notice_created_at"), "user_notice", ["created_at"])
    op.create_index(op.f("ix_user_notice_job_id"), "user_notice", ["job_id"])
    op.create_index("ix_user_notice_user_id_id", "user_notice", ["user_id", "id"])
    op.create_index(
        "ix_user_notice_unread", "user_notice", ["user_id"], postgresql_where=sa.text("is_listed AND read_at IS NULL")
    )
    op.create_table(
        "notice_delivery",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("notice_id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("service_id", sa.Text(), nullable=True),
        sa.Column("num_tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("channel IN ('email', 'service')", name=op.f("ck_notice_delivery_channel")),
        sa.ForeignKeyConstraint(
            ["notice_id"], ["user_notice.id"], name=op.f("fk_notice_delivery_notice_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["service_id"], ["notice_service.id"], name=op.f("fk_notice_delivery_service_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice_delivery")),
    )
    op.create_index(op.f("ix_notice_delivery_notice_id"), "notice_delivery", ["notice_id"])
    op.create_index(op.f("ix_notice_delivery_service_id"), "notice_delivery", ["service_id"])
    op.create_index(
        "ix_notice_delivery_due_at", "notice_delivery", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_table(
        "job_stall",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("noticed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_stall_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_stall")),
    )


def downgrade() -> None:
    for table in ("job_stall", "notice_delivery", "user_notice", "notice_service", "notice_settings"):
        op.drop_table(table)
    op.drop_column("job", "is_notified")
