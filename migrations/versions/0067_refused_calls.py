"""Refused calls of deployments share a row each minute."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0067"
down_revision: str | None = "0066"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("deployment_call", sa.Column("num_requests", sa.Integer(), server_default="1", nullable=False))


def downgrade() -> None:
    op.drop_column("deployment_call", "num_requests")
