"""Versions of corpora that a recipe made from another one, by background tasks of their own kind."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BEFORE = ("parse", "statistics", "import", "export", "evaluation")
TABLE, INDEX = "background_task", "uq_background_task_parse"
OPEN = "state IN ('queued', 'running')"


def upgrade() -> None:
    op.add_column("corpus", sa.Column("cleaning", JSONB(), server_default="{}", nullable=False))
    _allow((*BEFORE, "clean"), f"kind IN ('parse', 'clean') AND {OPEN}")


def downgrade() -> None:
    op.execute("DELETE FROM background_task WHERE kind = 'clean'")
    op.execute(
        """UPDATE corpus SET state = 'failed', problems = '[{"code": "reading_cancelled"}]'
        WHERE state = 'parsing' AND cleaning <> '{}'"""
    )
    _allow(BEFORE, f"kind = 'parse' AND {OPEN}")
    op.drop_column("corpus", "cleaning")


def _allow(kinds: tuple[str, ...], is_exclusive: str) -> None:
    op.drop_constraint(op.f(f"ck_{TABLE}_kind"), TABLE)
    op.create_check_constraint(op.f(f"ck_{TABLE}_kind"), TABLE, f"kind IN ({', '.join(map(repr, kinds))})")
    op.drop_index(INDEX, TABLE)
    op.create_index(INDEX, TABLE, ["corpus_id"], unique=True, postgresql_where=sa.text(is_exclusive))
