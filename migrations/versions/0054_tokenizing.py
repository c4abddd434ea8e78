"""Background tasks that tokenize corpora before a job."""

from collections.abc import Sequence

from alembic import op

revision: str = "0054"
down_revision: str | None = "0051"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

KINDS = "'parse', 'clean', 'statistics', 'import', 'export', 'evaluation', 'tokenizer', 'generate', 'job_import'"


def upgrade() -> None:
    _allow(f"{KINDS}, 'tokenize'")


def downgrade() -> None:
    op.execute("DELETE FROM background_task WHERE kind = 'tokenize'")
    _allow(KINDS)


def _allow(kinds: str) -> None:
    op.drop_constraint(op.f("ck_background_task_kind"), "background_task", type_="check")
    op.create_check_constraint(op.f("ck_background_task_kind"), "background_task", f"kind IN ({kinds})")
