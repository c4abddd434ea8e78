"""A job that is to go over its data so many times has no number of steps until its first attempt has counted them."""

from collections.abc import Sequence

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.alter_column("job", "max_steps", nullable=True)


def downgrade() -> None:
    op.execute("UPDATE job SET max_steps = greatest(step, 1) WHERE max_steps IS NULL")
    # Earlier versions require both fields of a spec. An empty warmup_steps is a twentieth of all steps.
    op.execute("UPDATE job SET spec = spec || jsonb_build_object('max_steps', max_steps)")
    op.execute(
        "UPDATE job SET spec = spec || jsonb_build_object('warmup_steps', max_steps / 20) "
        "WHERE spec->>'warmup_steps' IS NULL"
    )
    op.execute("UPDATE job SET spec = spec - 'num_train_epochs'")
    op.alter_column("job", "max_steps", nullable=False)
