"""Corpora of questions whose answers are checked."""

from collections.abc import Sequence

from alembic import op

revision: str = "0028"
down_revision: str | None = "0027"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BEFORE = ("text", "chat", "completion", "classification", "preference", "seq2seq", "multiple_choice", "unpaired")


def upgrade() -> None:
    _allow((*BEFORE, "questions"))


def downgrade() -> None:
    op.execute("DELETE FROM corpus WHERE kind = 'questions'")
    _allow(BEFORE)


def _allow(kinds: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_corpus_kind"), "corpus")
    op.create_check_constraint(op.f("ck_corpus_kind"), "corpus", f"kind IN ({', '.join(map(repr, kinds))})")
