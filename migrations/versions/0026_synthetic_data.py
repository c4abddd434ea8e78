"""Endpoints of models, records that models write, and corpora made of them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BEFORE = ("parse", "clean", "statistics", "import", "export", "evaluation", "tokenizer")


def upgrade() -> None:
    now = sa.text("now()")
    op.add_column("corpus", sa.Column("synthesis", JSONB(), server_default="{}", nullable=False))
    op.create_table(
        "model_endpoint",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("api_key", sa.Text(), server_default="", nullable=False),
        sa.Column("input_price", sa.Float(), nullable=True),
        sa.Column("output_price", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_model_endpoint_owner_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_endpoint")),
    )
    op.create_index(op.f("ix_model_endpoint_owner_id"), "model_endpoint", ["owner_id"])
    op.create_table(
        "record_generation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("corpus_id", sa.Text(), nullable=True),
        sa.Column("corpus_name", sa.Text(), nullable=False),
        sa.Column("corpus_version", sa.Integer(), nullable=False),
        sa.Column("corpus_sha256", sa.Text(), nullable=False),
        sa.Column("corpus_documents", sa.BigInteger(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=True),
        sa.Column("endpoint_url", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("input_price", sa.Float(), nullable=True),
        sa.Column("output_price", sa.Float(), nullable=True),
        sa.Column("settings", JSONB(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("num_prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("num_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("malformed", JSONB(), server_default="{}", nullable=False),
        sa.Column("examples", JSONB(), server_default="[]", nullable=False),
        sa.Column("stopped_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["user.id"], name=op.f("fk_record_generation_owner_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["corpus_id"], ["corpus.id"], name=op.f("fk_record_generation_corpus_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["model_endpoint.id"], name=op.f("fk_record_generation_endpoint_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["background_task.id"], name=op.f("fk_record_generation_task_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_record_generation")),
    )
    for column in ("owner_id", "corpus_id", "endpoint_id"):
        op.create_index(op.f(f"ix_record_generation_{column}"), "record_generation", [column])
    op.create_table(
        "prompted_document",
        sa.Column("generation_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("excerpt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["record_generation.id"],
            name=op.f("fk_prompted_document_generation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("generation_id", "number", name=op.f("pk_prompted_document")),
    )
    op.create_table(
        "draft_record",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("generation_id", sa.Text(), nullable=False),
        sa.Column("document", sa.BigInteger(), nullable=False),
        sa.Column("cells", JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="draft", nullable=False),
        sa.Column("is_edited", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("duplicate_of", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('draft', 'accepted', 'rejected')", name=op.f("ck_draft_record_state")),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["record_generation.id"], name=op.f("fk_draft_record_generation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draft_record")),
    )
    op.create_index("ix_draft_record_generation_id_id", "draft_record", ["generation_id", "id"])
    _allow((*BEFORE, "generate"))


def downgrade() -> None:
    op.execute("DELETE FROM background_task WHERE kind = 'generate'")
    _allow(BEFORE)
    for table in ("draft_record", "prompted_document", "record_generation", "model_endpoint"):
        op.drop_table(table)
    op.drop_column("corpus", "synthesis")


def _allow(kinds: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_background_task_kind"), "background_task")
    op.create_check_constraint(
        op.f("ck_background_task_kind"), "background_task", f"kind IN ({', '.join(map(repr, kinds))})"
    )
