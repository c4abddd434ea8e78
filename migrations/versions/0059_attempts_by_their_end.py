"""GPU hours are summed up of the attempts of thirty days alone; the loss by which jobs are ordered is named eval_loss."""

from collections.abc import Sequence

from alembic import op

revision: str = "0059"
down_revision: str | None = "0058"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_attempt_ended_at", "attempt", ["ended_at"])
    _rename("listed_loss", "eval_loss")


def downgrade() -> None:
    _rename("eval_loss", "listed_loss")
    op.drop_index("ix_attempt_ended_at", "attempt")


def _rename(old: str, new: str) -> None:
    op.execute(f"ALTER TABLE job RENAME COLUMN {old} TO {new}")
    op.execute(f"ALTER INDEX ix_job_owner_id_{old} RENAME TO ix_job_owner_id_{new}")
