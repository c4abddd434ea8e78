"""What OpenAI's API needs: purposes of files, uploads in parts, waiting jobs, webhooks, and the order of events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.Text(), nullable=False)


def _owner(table: str) -> list[sa.Column[str] | sa.ForeignKeyConstraint]:
    return [
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f(f"fk_{table}_owner_id"), ondelete="CASCADE"),
    ]


def _now(name: str) -> sa.Column[sa.DateTime]:
    return sa.Column(name, TIME, server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    op.add_column("corpus", sa.Column("purpose", sa.Text(), nullable=True))
    op.add_column("corpus", sa.Column("expires_at", TIME, nullable=True))
    op.add_column("job_event", sa.Column("journal_seq", sa.Integer(), server_default="0", nullable=False))
    op.add_column("metric_point", sa.Column("at", TIME, nullable=True))
    _create_uploads()
    _create_submissions()
    _create_webhooks()


def _create_uploads() -> None:
    op.create_table(
        "parted_upload",
        _id(),
        *_owner("parted_upload"),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("file_lifetime", sa.Integer(), nullable=True),
        sa.Column("part_ids", JSONB(), server_default="[]", nullable=False),
        sa.Column("corpus_id", sa.Text(), nullable=True),
        _now("created_at"),
        sa.Column("expires_at", TIME, nullable=False),
        sa.CheckConstraint("state IN ('pending', 'completed', 'cancelled')", name=op.f("ck_parted_upload_state")),
        sa.ForeignKeyConstraint(
            ["corpus_id"], ["corpus.id"], name=op.f("fk_parted_upload_corpus_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parted_upload")),
    )
    op.create_index(op.f("ix_parted_upload_owner_id"), "parted_upload", ["owner_id"])
    op.create_table(
        "upload_part",
        _id(),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        _now("created_at"),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["parted_upload.id"], name=op.f("fk_upload_part_upload_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_part")),
    )
    op.create_index(op.f("ix_upload_part_upload_id"), "upload_part", ["upload_id"])


def _create_submissions() -> None:
    op.create_table(
        "submission",
        _id(),
        *_owner("submission"),
        sa.Column("request", JSONB(), nullable=False),
        sa.Column("details", JSONB(), nullable=False),
        sa.Column("body_sha256", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("desired", sa.Text(), server_default="run", nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("failure", JSONB(), server_default="{}", nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        _now("created_at"),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'submitted', 'failed', 'cancelled')", name=op.f("ck_submission_state")
        ),
        sa.CheckConstraint("desired IN ('run', 'pause')", name=op.f("ck_submission_desired")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_submission_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submission")),
        sa.UniqueConstraint("owner_id", "idempotency_key", name=op.f("uq_submission_owner_id_idempotency_key")),
        sa.UniqueConstraint("job_id", name=op.f("uq_submission_job_id")),
    )
    op.create_index("ix_submission_owner_id_id", "submission", ["owner_id", "id"])
    op.create_index(
        "ix_submission_state_waiting", "submission", ["state"], postgresql_where=sa.text("state = 'waiting'")
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhook_endpoint",
        _id(),
        *_owner("webhook_endpoint"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", JSONB(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text(), nullable=True),
        sa.Column("old_secret_until", TIME, nullable=True),
        _now("created_at"),
        _now("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoint")),
    )
    op.create_index(op.f("ix_webhook_endpoint_owner_id"), "webhook_endpoint", ["owner_id"])
    op.create_table(
        "webhook_delivery",
        _id(),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("num_tries", sa.Integer(), server_default="0", nullable=False),
        _now("due_at"),
        _now("created_at"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoint.id"], name=op.f("fk_webhook_delivery_endpoint_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
    )
    op.create_index(op.f("ix_webhook_delivery_endpoint_id"), "webhook_delivery", ["endpoint_id"])
    op.create_index(op.f("ix_webhook_delivery_due_at"), "webhook_delivery", ["due_at"])


def downgrade() -> None:
    for table in ("webhook_delivery", "webhook_endpoint", "submission", "upload_part", "parted_upload"):
        op.drop_table(table)
    op.drop_column("metric_point", "at")
    op.drop_column("job_event", "journal_seq")
    op.drop_column("corpus", "expires_at")
    op.drop_column("corpus", "purpose")
