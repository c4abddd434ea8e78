"""Corpora of judged single answers."""

from collections.abc import Sequence

from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BEFORE = ("text", "chat", "completion", "classification", "preference", "seq2seq", "multiple_choice")


def upgrade() -> None:
    _allow((*BEFORE, "unpaired"))


def downgrade() -> None:
    op.execute("DELETE FROM corpus WHERE kind = 'unpaired'")
    _allow(BEFORE)


def _allow(kinds: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_corpus_kind"), "corpus")
    op.create_check_constraint(op.f("ck_corpus_kind"), "corpus", f"kind IN ({', '.join(map(repr, kinds))})")
