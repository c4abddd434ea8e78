"""Uploads that can be resumed, in the table of those that are sent in parts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

CONSTRAINTS = ("pk_{}", "ck_{}_state", "fk_{}_owner_id", "fk_{}_corpus_id")


def _rename(old: str, new: str) -> None:
    op.rename_table(old, new)
    for name in CONSTRAINTS:
        op.execute(f"ALTER TABLE {new} RENAME CONSTRAINT {name.format(old)} TO {name.format(new)}")
    op.execute(f"ALTER INDEX ix_{old}_owner_id RENAME TO ix_{new}_owner_id")


def upgrade() -> None:
    _rename("parted_upload", "upload")
    op.alter_column("upload", "purpose", nullable=True)
    op.add_column("upload", sa.Column("num_received", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("upload", sa.Column("sha256", sa.Text(), nullable=True))
    op.add_column("upload", sa.Column("tus_metadata", sa.Text(), nullable=True))
    op.create_index("ix_upload_state_pending", "upload", ["state"], postgresql_where=sa.text("state = 'pending'"))


def downgrade() -> None:
    op.execute("DELETE FROM upload WHERE tus_metadata IS NOT NULL")
    op.drop_index("ix_upload_state_pending", "upload")
    for column in ("tus_metadata", "sha256", "num_received"):
        op.drop_column("upload", column)
    op.alter_column("upload", "purpose", nullable=False)
    _rename("upload", "parted_upload")
