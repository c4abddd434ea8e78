"""What has been forwarded to experiment trackers."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0048"
down_revision: str | None = "0049"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "job_forwarding",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("tracker", sa.Text(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("target", sa.Text(), server_default="", nullable=False),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("steps", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("remote", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("due_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("num_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("failed_at", TIME),
        sa.Column("forwarded_at", TIME),
        sa.Column("finished_at", TIME),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_forwarding_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "tracker", name=op.f("pk_job_forwarding")),
    )
    op.create_index(
        "ix_job_forwarding_open", "job_forwarding", ["tracker"], postgresql_where=sa.text("finished_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("job_forwarding")
