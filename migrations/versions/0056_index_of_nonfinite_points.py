"""An index of points that are no numbers, which any zoom marks however long the run is."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0056"
down_revision: str | None = "0054"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_metric_point_nonfinite"


def upgrade() -> None:
    columns = ["job_id", "series", "step"]
    op.create_index(INDEX, "metric_point", columns, postgresql_where=sa.text("nonfinite IS NOT NULL"))


def downgrade() -> None:
    op.drop_index(INDEX, table_name="metric_point")
