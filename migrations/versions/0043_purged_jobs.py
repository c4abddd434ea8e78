"""Jobs whose rows are deleted in batches, and the checkpoint or base model that wrote records."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0043"
down_revision: str | None = "0038"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

MODEL_IDS = """
UPDATE record_generation
SET model_id = coalesce((SELECT model_id FROM deployment WHERE deployment.id = record_generation.model), model)
WHERE endpoint_url IS NULL
"""


def upgrade() -> None:
    op.add_column("job", sa.Column("purged_at", sa.DateTime(timezone=True)))
    op.create_index("ix_job_purged_at", "job", ["purged_at"], postgresql_where=sa.text("purged_at IS NOT NULL"))
    op.add_column("record_generation", sa.Column("model_id", sa.Text()))
    op.execute(MODEL_IDS)


def downgrade() -> None:
    """Jobs that are being deleted are deleted at once."""
    op.execute("DELETE FROM job WHERE purged_at IS NOT NULL")
    op.drop_column("record_generation", "model_id")
    op.drop_index("ix_job_purged_at", "job")
    op.drop_column("job", "purged_at")
