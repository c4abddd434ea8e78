"""Quotas of users."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0033"
down_revision: str | None = "0032"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COLUMNS = {"quota_bytes": sa.BigInteger(), "quota_jobs": sa.Integer(), "quota_gpu_hours": sa.Double()}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("user", sa.Column(name, kind))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("user", name)
