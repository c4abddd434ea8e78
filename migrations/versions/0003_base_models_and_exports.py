"""Imported base models, and exports and evaluations of checkpoints."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSONB = postgresql.JSONB(astext_type=sa.Text())


KINDS = "'text', 'chat', 'completion', 'classification', 'preference', 'seq2seq', 'multiple_choice'"


def upgrade() -> None:
    op.add_column("corpus", sa.Column("kind", sa.Text(), server_default="text", nullable=False))
    op.create_check_constraint(op.f("ck_corpus_kind"), "corpus", f"kind IN ({KINDS})")
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
    op.create_table(
        "work",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("options", JSONB, nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("num_starts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("progress", JSONB, server_default="{}", nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("result", JSONB, server_default="{}", nullable=False),
        sa.Column("failure", JSONB, server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('export', 'evaluation')", name=op.f("ck_work_kind")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_work_state")
        ),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoint.id"], name=op.f("fk_work_checkpoint_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_work_owner_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work")),
    )
    op.create_index(op.f("ix_work_owner_id"), "work", ["owner_id"], unique=False)
    op.create_index(op.f("ix_work_checkpoint_id"), "work", ["checkpoint_id"], unique=False)


def downgrade() -> None:
    op.drop_table("work")
    op.drop_constraint(op.f("ck_corpus_kind"), "corpus")
    op.drop_column("corpus", "kind")
    op.drop_table("base_model")
