"""Hyperparameter searches whose later jobs depend on the results of earlier ones."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0042"
down_revision: str | None = "0040"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("hyperparameter_search", sa.Column("plan", postgresql.JSONB()))
    op.add_column("hyperparameter_search", sa.Column("is_open", sa.Boolean(), server_default="false", nullable=False))
    op.create_index(
        "ix_hyperparameter_search_open", "hyperparameter_search", ["id"], postgresql_where=sa.text("is_open")
    )


def downgrade() -> None:
    """Searches that are under way get no further jobs."""
    op.drop_index("ix_hyperparameter_search_open", "hyperparameter_search")
    op.drop_column("hyperparameter_search", "is_open")
    op.drop_column("hyperparameter_search", "plan")
