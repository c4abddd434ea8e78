"""Corpora that the best checkpoint of a job is evaluated on when the job has succeeded."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0031"
down_revision: str | None = "0030"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("job", sa.Column("evaluation_corpora", JSONB(), server_default="[]", nullable=False))
    is_due = sa.text("state = 'succeeded' AND evaluation_corpora <> '[]'")
    op.create_index("ix_job_evaluation_due", "job", ["id"], postgresql_where=is_due)


def downgrade() -> None:
    op.drop_index("ix_job_evaluation_due", "job")
    op.drop_column("job", "evaluation_corpora")
