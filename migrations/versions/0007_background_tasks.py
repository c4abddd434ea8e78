"""Parsing and imports are background tasks, like exports and evaluations, with a lease and a fence."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.core.model_base import new_id

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OLD, TABLE = "checkpoint_task", "background_task"
CONSTRAINTS = ("pk_{}", "fk_{}_owner_id", "fk_{}_checkpoint_id", "fk_{}_model_id", "ck_{}_state")
INDEXES = ("ix_{}_owner_id", "ix_{}_checkpoint_id", "ix_{}_model_id")
OPEN = "state IN ('queued', 'running')"
KINDS = "kind IN ('parse', 'import', 'export', 'evaluation')"
OLD_KINDS = "kind IN ('export', 'evaluation')"
MEMORY_BYTES = 8 * 2**30  # for tasks of earlier versions, which did not know what they need
OLD_COLUMNS = ("num_losses", "node", "lease_until", "not_before", "memory_bytes")


def upgrade() -> None:
    _rename(OLD, TABLE)
    op.drop_constraint(op.f(f"ck_{OLD}_kind"), TABLE, type_="check")
    op.drop_constraint(op.f(f"ck_{OLD}_subject"), TABLE, type_="check")
    op.alter_column(TABLE, "owner_id", nullable=True)
    op.alter_column(TABLE, "options", server_default="{}")
    op.alter_column(TABLE, "num_starts", new_column_name="fence")
    op.drop_column(TABLE, "signed_at")
    op.add_column(TABLE, sa.Column("corpus_id", sa.Text()))
    op.add_column(TABLE, sa.Column("num_losses", sa.Integer(), server_default="0", nullable=False))
    op.add_column(TABLE, sa.Column("node", sa.Text()))
    op.add_column(TABLE, sa.Column("lease_until", sa.DateTime(timezone=True)))
    op.add_column(TABLE, sa.Column("not_before", sa.DateTime(timezone=True)))
    op.add_column(TABLE, sa.Column("memory_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.create_foreign_key(op.f(f"fk_{TABLE}_corpus_id"), TABLE, "corpus", ["corpus_id"], ["id"], ondelete="CASCADE")
    op.create_index(op.f(f"ix_{TABLE}_corpus_id"), TABLE, ["corpus_id"])
    op.create_check_constraint(op.f(f"ck_{TABLE}_kind"), TABLE, KINDS)
    subject = "num_nonnulls(corpus_id, checkpoint_id, model_id) = 1"
    op.create_check_constraint(op.f(f"ck_{TABLE}_subject"), TABLE, subject)
    op.create_index(op.f(f"ix_{TABLE}_state_open"), TABLE, ["state"], postgresql_where=sa.text(OPEN))
    op.create_index(f"uq_{TABLE}_parse", TABLE, ["corpus_id"], unique=True, postgresql_where=sa.text(OPEN))
    is_import = sa.text(f"kind = 'import' AND {OPEN}")
    op.create_index(f"uq_{TABLE}_import", TABLE, ["model_id"], unique=True, postgresql_where=is_import)
    op.execute("UPDATE background_task SET lease_until = now() WHERE state = 'running'")
    op.execute(f"UPDATE background_task SET memory_bytes = {MEMORY_BYTES} WHERE {OPEN}")  # noqa: S608 - constants
    _queue("parse", "corpus_id", "corpus", "parsing")
    _queue("import", "model_id", "base_model", "importing")
    op.drop_column("base_model", "progress")


def _queue(kind: str, column: str, table: str, state: str) -> None:
    """Queue what earlier versions were working on, or would have."""
    connection = op.get_bind()
    for row in connection.execute(sa.text(f"SELECT id, owner_id FROM {table} WHERE state = '{state}'")).all():  # noqa: S608
        values = {"id": new_id(), "owner_id": row.owner_id, "subject": row.id}
        names = f"id, owner_id, {column}, kind, memory_bytes, state, progress, result, failure"
        insert = f"INSERT INTO {TABLE} ({names}) VALUES (:id, :owner_id, :subject, '{kind}', {MEMORY_BYTES}, 'queued', '{{}}', '{{}}', '{{}}')"  # noqa: S608
        connection.execute(sa.text(insert), values)


def downgrade() -> None:
    op.add_column(
        "base_model", sa.Column("progress", sa.dialects.postgresql.JSONB(), server_default="{}", nullable=False)
    )
    op.execute("DELETE FROM background_task WHERE kind IN ('parse', 'import') OR owner_id IS NULL")
    for name in (f"uq_{TABLE}_import", f"uq_{TABLE}_parse", f"ix_{TABLE}_state_open"):
        op.drop_index(name, TABLE)
    op.drop_constraint(op.f(f"ck_{TABLE}_subject"), TABLE, type_="check")
    op.drop_constraint(op.f(f"ck_{TABLE}_kind"), TABLE, type_="check")
    op.drop_column(TABLE, "corpus_id")
    for name in OLD_COLUMNS:
        op.drop_column(TABLE, name)
    op.add_column(
        TABLE, sa.Column("signed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
    )
    op.alter_column(TABLE, "fence", new_column_name="num_starts")
    op.alter_column(TABLE, "options", server_default=None)
    op.alter_column(TABLE, "owner_id", nullable=False)
    _rename(TABLE, OLD)
    op.create_check_constraint(op.f(f"ck_{OLD}_subject"), OLD, "num_nonnulls(checkpoint_id, model_id) = 1")
    op.create_check_constraint(op.f(f"ck_{OLD}_kind"), OLD, OLD_KINDS)


def _rename(old: str, new: str) -> None:
    op.rename_table(old, new)
    for name in CONSTRAINTS:
        op.execute(f"ALTER TABLE {new} RENAME CONSTRAINT {name.format(old)} TO {name.format(new)}")
    for name in INDEXES:
        op.execute(f"ALTER INDEX {name.format(old)} RENAME TO {name.format(new)}")
