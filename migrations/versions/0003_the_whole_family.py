"""What training the whole family of models keeps: imported base models."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSONB = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.create_table(
        "base_model",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("facts", JSONB, server_default="{}", nullable=False),
        sa.Column("files", JSONB, server_default="[]", nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("num_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("problems", JSONB, server_default="[]", nullable=False),
        sa.Column("progress", JSONB, server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("source IN ('upload', 'hub')", name=op.f("ck_base_model_source")),
        sa.CheckConstraint("state IN ('uploading', 'importing', 'ready', 'failed')", name=op.f("ck_base_model_state")),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_base_model_owner_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_base_model")),
    )
    op.create_index(op.f("ix_base_model_owner_id"), "base_model", ["owner_id"], unique=False)


def downgrade() -> None:
    op.drop_table("base_model")
