"""Columns for pausing, recovery, retention and fair scheduling; the table of transitions as a trigger."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSONB = postgresql.JSONB(astext_type=sa.Text())

# As app/jobs/lifecycle/transitions.py says; a test holds the two together.
TRIGGER = """
CREATE FUNCTION guard_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'the fence of job % may not fall from % to %', OLD.id, OLD.fence, NEW.fence;
    END IF;
    IF NEW.state <> OLD.state AND OLD.state || '>' || NEW.state NOT IN (
        'queued>starting', 'queued>paused', 'queued>cancelled',
        'starting>running', 'starting>succeeded', 'starting>failed', 'starting>pausing', 'starting>cancelling',
        'starting>recovering',
        'running>succeeded', 'running>failed', 'running>pausing', 'running>cancelling', 'running>recovering',
        'pausing>paused', 'pausing>cancelling', 'pausing>recovering',
        'paused>queued', 'paused>cancelled',
        'cancelling>cancelled', 'cancelling>recovering',
        'recovering>queued', 'recovering>paused', 'recovering>cancelled', 'recovering>failed'
    ) THEN
        RAISE EXCEPTION 'a job may not move from % to %', OLD.state, NEW.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_job BEFORE UPDATE OF state, fence ON job FOR EACH ROW EXECUTE FUNCTION guard_job();
"""


def upgrade() -> None:
    op.create_table(
        "heartbeat",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("facts", JSONB, server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_heartbeat")),
    )
    op.add_column("attempt", sa.Column("exit_data", JSONB, server_default="{}", nullable=False))
    op.add_column("attempt", sa.Column("resumed_from", sa.Text(), nullable=True))
    op.add_column("attempt", sa.Column("reached_step", sa.Integer(), server_default="0", nullable=False))
    op.add_column("attempt", sa.Column("replay", JSONB, server_default="{}", nullable=False))
    op.alter_column("attempt", "resume_step", nullable=True, server_default=None)
    op.add_column("checkpoint", sa.Column("state", sa.Text(), server_default="ready", nullable=False))
    op.add_column("checkpoint", sa.Column("pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_check_constraint(
        op.f("ck_checkpoint_state"), "checkpoint", "state IN ('ready', 'corrupt', 'deleting', 'deleted')"
    )
    op.add_column("job", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("job", sa.Column("adjustments", JSONB, server_default="{}", nullable=False))
    op.add_column("job", sa.Column("notice", JSONB, server_default="{}", nullable=False))
    op.add_column("job", sa.Column("resume_from_id", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_job_resume_from_id"), "job", "checkpoint", ["resume_from_id"], ["id"], ondelete="SET NULL"
    )
    op.add_column(
        "job", sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    op.add_column("outbox", sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE job SET queued_at = created_at, wait_reason = NULL")  # the scheduler writes reasons anew
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("UPDATE job SET wait_reason = NULL")
    op.execute("DROP TRIGGER guard_job ON job; DROP FUNCTION guard_job()")
    op.drop_constraint(op.f("fk_job_resume_from_id"), "job", type_="foreignkey")
    for column in ("queued_at", "resume_from_id", "notice", "adjustments", "priority"):
        op.drop_column("job", column)
    op.drop_constraint(op.f("ck_checkpoint_state"), "checkpoint", type_="check")
    for column in ("pinned", "state"):
        op.drop_column("checkpoint", column)
    op.execute("UPDATE attempt SET resume_step = 0 WHERE resume_step IS NULL")
    op.alter_column("attempt", "resume_step", nullable=False, server_default="0")
    for column in ("replay", "reached_step", "resumed_from", "exit_data"):
        op.drop_column("attempt", column)
    op.drop_column("outbox", "claimed_until")
    op.drop_table("heartbeat")
