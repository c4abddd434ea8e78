"""Jobs that are imported from archives, and the background tasks that import them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0049"
down_revision: str | None = "0047"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

KINDS = "'parse', 'clean', 'statistics', 'import', 'export', 'evaluation', 'tokenizer', 'generate'"
SUBJECTS = "num_nonnulls(corpus_id, checkpoint_id, model_id, tokenizer_id)"


def upgrade() -> None:
    op.add_column("job", sa.Column("imported_from", JSONB()))
    _replace_checks(f"kind IN ({KINDS}, 'job_import')", f"{SUBJECTS} = CASE kind WHEN 'job_import' THEN 0 ELSE 1 END")


def downgrade() -> None:
    """What is being imported is lost. Imported jobs stay, without saying where they come from."""
    op.execute("DELETE FROM background_task WHERE kind = 'job_import'")
    _replace_checks(f"kind IN ({KINDS})", f"{SUBJECTS} = 1")
    op.drop_column("job", "imported_from")


def _replace_checks(kind: str, subject: str) -> None:
    for name, condition in (("kind", kind), ("subject", subject)):
        op.drop_constraint(op.f(f"ck_background_task_{name}"), "background_task", type_="check")
        op.create_check_constraint(op.f(f"ck_background_task_{name}"), "background_task", condition)
