"""Answers by Idempotency-Key, user names that are compared composed, and directories that are to be deleted."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.core.names import comparison_key

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "idempotency_key",
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("lease_until", TIME, nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["user.id"], name=op.f("fk_idempotency_key_owner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", "key_sha256", name=op.f("pk_idempotency_key")),
    )
    op.create_index(op.f("ix_idempotency_key_created_at"), "idempotency_key", ["created_at"])
    op.create_table(
        "deleted_directory",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("removed_at", TIME, nullable=True),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_deleted_directory")),
    )
    op.add_column("user", sa.Column("name_key", sa.Text(), nullable=True))
    _fill_name_keys()
    op.alter_column("user", "name_key", nullable=False)
    op.drop_index("uq_user_lower_name", "user")
    op.create_unique_constraint(op.f("uq_user_name_key"), "user", ["name_key"])


def _fill_name_keys() -> None:
    """Of users whose names earlier versions told apart, all but the oldest log in with the exact name only."""
    connection = op.get_bind()
    taken = set()
    for row in connection.execute(sa.text('SELECT id, name FROM "user" ORDER BY created_at, id')).all():
        key = comparison_key(row.name)
        key = f"{key}\n{row.id}" if key in taken else key
        taken.add(key)
        connection.execute(sa.text('UPDATE "user" SET name_key = :key WHERE id = :id'), {"key": key, "id": row.id})


def downgrade() -> None:
    op.drop_constraint(op.f("uq_user_name_key"), "user", type_="unique")
    op.create_index("uq_user_lower_name", "user", [sa.text("lower(name)")], unique=True)
    op.drop_column("user", "name_key")
    op.drop_table("deleted_directory")
    op.drop_index(op.f("ix_idempotency_key_created_at"), "idempotency_key")
    op.drop_table("idempotency_key")
