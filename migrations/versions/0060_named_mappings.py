"""Named mappings of columns have a table of their own; those of earlier versions are taken from the corpora."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0060"
down_revision: str | None = "0059"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The newest of each name; a corpus has one mapping at most, so that its ID is one for the mapping, too.
NEWEST = """
    INSERT INTO named_mapping (id, owner_id, name, mapping)
    SELECT DISTINCT ON (owner_id, progress -> 'mapping' ->> 'name')
        id, owner_id, progress -> 'mapping' ->> 'name', progress -> 'mapping'
    FROM corpus
    WHERE owner_id IS NOT NULL AND deleted_at IS NULL AND progress -> 'mapping' ->> 'name' <> ''
    ORDER BY owner_id, progress -> 'mapping' ->> 'name', id DESC
"""


def upgrade() -> None:
    op.create_table(
        "named_mapping",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mapping", JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_named_mapping_owner_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_named_mapping")),
        sa.UniqueConstraint("owner_id", "name", name=op.f("uq_named_mapping_owner_id_name")),
    )
    op.execute(NEWEST)


def downgrade() -> None:
    op.drop_table("named_mapping")
