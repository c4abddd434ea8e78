"""Jobs that are submitted together to search for hyperparameters."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0022"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "hyperparameter_search",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fields", postgresql.JSONB(), nullable=False),
        sa.Column("early_stopping", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["user.id"], name=op.f("fk_hyperparameter_search_owner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hyperparameter_search")),
    )
    op.create_index(op.f("ix_hyperparameter_search_owner_id"), "hyperparameter_search", ["owner_id"])
    op.add_column("job", sa.Column("search_id", sa.Text(), nullable=True))
    op.create_index(op.f("ix_job_search_id"), "job", ["search_id"])
    op.create_foreign_key(
        op.f("fk_job_search_id"), "job", "hyperparameter_search", ["search_id"], ["id"], ondelete="SET NULL"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_job_search_id"), "job", type_="foreignkey")
    op.drop_index(op.f("ix_job_search_id"), "job")
    op.drop_column("job", "search_id")
    op.drop_table("hyperparameter_search")
