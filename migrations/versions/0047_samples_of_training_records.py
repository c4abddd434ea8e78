"""Samples of a training record beside those of a held-out one."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0047"
down_revision: str | None = "0045"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("sample", sa.Column("split", sa.Text(), server_default="validation", nullable=False))
    op.drop_constraint("pk_sample", "sample")
    op.create_primary_key("pk_sample", "sample", ["job_id", "step", "fence", "split"])


def downgrade() -> None:
    op.execute("DELETE FROM sample WHERE split <> 'validation'")
    op.drop_constraint("pk_sample", "sample")
    op.create_primary_key("pk_sample", "sample", ["job_id", "step", "fence"])
    op.drop_column("sample", "split")
