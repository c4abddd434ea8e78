"""Deployments of models."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")
TEXTS = postgresql.ARRAY(sa.Text())


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("num_replicas", sa.Integer(), server_default="1", nullable=False),
        sa.Column("nodes", TEXTS, server_default="{}", nullable=False),
        sa.Column("access", sa.Text(), server_default="owner", nullable=False),
        sa.Column("user_ids", TEXTS, server_default="{}", nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("updated_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint("access IN ('owner', 'users', 'everyone')", name=op.f("ck_deployment_access")),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_deployment_owner_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
        sa.UniqueConstraint("name_key", name=op.f("uq_deployment_name_key")),
    )
    op.create_index("ix_deployment_model_id", "deployment", ["model_id"])
    op.create_table(
        "replica",
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("seen_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint("state IN ('loading', 'ready', 'failed')", name=op.f("ck_replica_state")),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name=op.f("fk_replica_deployment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("deployment_id", "node", name=op.f("pk_replica")),
    )
    op.create_table(
        "deployment_call",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("first_milliseconds", sa.Integer(), nullable=True),
        sa.Column("num_prompt_tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("num_tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name=op.f("fk_deployment_call_deployment_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment_call")),
    )
    op.create_index("ix_deployment_call_deployment_id_created_at", "deployment_call", ["deployment_id", "created_at"])


def downgrade() -> None:
    op.drop_table("deployment_call")
    op.drop_table("replica")
    op.drop_table("deployment")
