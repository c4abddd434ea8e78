"""Corpora are versions of several files: every one so far is the first version, of one file."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("corpus", sa.Column("lineage_id", sa.Text(), nullable=True))
    op.add_column("corpus", sa.Column("version", sa.Integer(), server_default="1", nullable=False))
    op.add_column("corpus", sa.Column("num_uploads", sa.Integer(), server_default="1", nullable=False))
    op.execute("UPDATE corpus SET lineage_id = id")
    op.alter_column("corpus", "lineage_id", nullable=False)
    op.create_unique_constraint(op.f("uq_corpus_lineage_id_version"), "corpus", ["lineage_id", "version"])
    op.create_table(
        "corpus_file",
        sa.Column("corpus_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("encoding", sa.Text(), nullable=True),
        sa.Column("num_documents", sa.BigInteger(), nullable=True),
        sa.Column("num_text_bytes", sa.BigInteger(), nullable=True),
        sa.Column("num_problems", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["corpus_id"], ["corpus.id"], name=op.f("fk_corpus_file_corpus_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("corpus_id", "position", name=op.f("pk_corpus_file")),
    )
    op.execute(
        "INSERT INTO corpus_file (corpus_id, position, filename, format, num_bytes, sha256, encoding, num_documents, "
        "num_text_bytes) SELECT id, 0, filename, format, num_bytes, sha256, encoding, num_documents, num_text_bytes "
        "FROM corpus"
    )


def downgrade() -> None:
    op.drop_table("corpus_file")
    op.drop_constraint(op.f("uq_corpus_lineage_id_version"), "corpus")
    for column in ("num_uploads", "version", "lineage_id"):
        op.drop_column("corpus", column)
