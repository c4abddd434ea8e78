"""Imported base models can be exported and evaluated too: a task has a checkpoint or a base model."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLE = "checkpoint_task"


def upgrade() -> None:
    op.alter_column(TABLE, "checkpoint_id", nullable=True)
    op.add_column(TABLE, sa.Column("model_id", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_checkpoint_task_model_id"), TABLE, "base_model", ["model_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f("ix_checkpoint_task_model_id"), TABLE, ["model_id"])
    op.create_check_constraint(op.f("ck_checkpoint_task_subject"), TABLE, "num_nonnulls(checkpoint_id, model_id) = 1")


def downgrade() -> None:
    op.execute("DELETE FROM checkpoint_task WHERE checkpoint_id IS NULL")
    op.drop_constraint(op.f("ck_checkpoint_task_subject"), TABLE, type_="check")
    op.drop_column(TABLE, "model_id")
    op.alter_column(TABLE, "checkpoint_id", nullable=False)
