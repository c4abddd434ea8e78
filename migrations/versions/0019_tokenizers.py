"""Tokenizers are trained and imported by themselves; so far jobs trained all of them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0019"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TASK = "background_task"
KINDS = "kind IN ('parse', 'import', 'export', 'evaluation', 'statistics', 'clean', 'tokenizer')"
KINDS_BEFORE = "kind IN ('parse', 'import', 'export', 'evaluation', 'statistics', 'clean')"
SUBJECT = "num_nonnulls(corpus_id, checkpoint_id, model_id, tokenizer_id) = 1"
SUBJECT_BEFORE = "num_nonnulls(corpus_id, checkpoint_id, model_id) = 1"


def upgrade() -> None:
    op.add_column("tokenizer", sa.Column("source", sa.Text(), server_default="job", nullable=False))
    op.add_column("tokenizer", sa.Column("state", sa.Text(), server_default="ready", nullable=False))
    op.add_column("tokenizer", sa.Column("facts", JSONB(), server_default="{}", nullable=False))
    op.add_column("tokenizer", sa.Column("problems", JSONB(), server_default="[]", nullable=False))
    op.alter_column("tokenizer", "vocab_size", nullable=True)
    op.alter_column("tokenizer", "sha256", nullable=True)
    op.create_check_constraint(op.f("ck_tokenizer_source"), "tokenizer", "source IN ('job', 'training', 'import')")
    op.create_check_constraint(op.f("ck_tokenizer_state"), "tokenizer", "state IN ('preparing', 'ready', 'failed')")
    op.drop_constraint(op.f("uq_tokenizer_owner_id_sha256"), "tokenizer")
    of_jobs = sa.text("source = 'job'")
    op.create_index("uq_tokenizer_of_jobs", "tokenizer", ["owner_id", "sha256"], unique=True, postgresql_where=of_jobs)
    op.add_column(TASK, sa.Column("tokenizer_id", sa.Text()))
    op.create_foreign_key(
        op.f(f"fk_{TASK}_tokenizer_id"), TASK, "tokenizer", ["tokenizer_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f(f"ix_{TASK}_tokenizer_id"), TASK, ["tokenizer_id"])
    _check(KINDS, SUBJECT)


def downgrade() -> None:
    op.execute("DELETE FROM tokenizer WHERE source <> 'job'")
    _check(KINDS_BEFORE, SUBJECT_BEFORE)
    op.drop_column(TASK, "tokenizer_id")
    op.drop_index("uq_tokenizer_of_jobs", "tokenizer")
    op.create_unique_constraint(op.f("uq_tokenizer_owner_id_sha256"), "tokenizer", ["owner_id", "sha256"])
    op.alter_column("tokenizer", "sha256", nullable=False)
    op.alter_column("tokenizer", "vocab_size", nullable=False)
    for column in ("problems", "facts", "state", "source"):
        op.drop_column("tokenizer", column)


def _check(kinds: str, subject: str) -> None:
    for name, condition in (("kind", kinds), ("subject", subject)):
        op.drop_constraint(op.f(f"ck_{TASK}_{name}"), TASK)
        op.create_check_constraint(op.f(f"ck_{TASK}_{name}"), TASK, condition)
