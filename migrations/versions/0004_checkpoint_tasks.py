"""The table of exports and evaluations is called checkpoint_task."""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

CONSTRAINTS = ("pk_{}", "fk_{}_owner_id", "fk_{}_checkpoint_id", "ck_{}_kind", "ck_{}_state")
INDEXES = ("ix_{}_owner_id", "ix_{}_checkpoint_id")


def _rename(old: str, new: str) -> None:
    op.rename_table(old, new)
    for name in CONSTRAINTS:
        op.execute(f"ALTER TABLE {new} RENAME CONSTRAINT {name.format(old)} TO {name.format(new)}")
    for name in INDEXES:
        op.execute(f"ALTER INDEX {name.format(old)} RENAME TO {name.format(new)}")


def upgrade() -> None:
    _rename("work", "checkpoint_task")


def downgrade() -> None:
    _rename("checkpoint_task", "work")
