"""Background tasks that count the statistics of a corpus, beside one that parses it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BEFORE = ("parse", "import", "export", "evaluation")
TABLE, INDEX = "background_task", "uq_background_task_parse"
OPEN = "state IN ('queued', 'running')"


def upgrade() -> None:
    _allow((*BEFORE, "statistics"), f"kind = 'parse' AND {OPEN}")


def downgrade() -> None:
    op.execute("DELETE FROM background_task WHERE kind = 'statistics'")
    _allow(BEFORE, OPEN)


def _allow(kinds: tuple[str, ...], is_exclusive: str) -> None:
    op.drop_constraint(op.f(f"ck_{TABLE}_kind"), TABLE)
    op.create_check_constraint(op.f(f"ck_{TABLE}_kind"), TABLE, f"kind IN ({', '.join(map(repr, kinds))})")
    op.drop_index(INDEX, TABLE)
    op.create_index(INDEX, TABLE, ["corpus_id"], unique=True, postgresql_where=sa.text(is_exclusive))
