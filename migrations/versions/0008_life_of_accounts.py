"""Users can be disabled, sessions are listed, and guesses are counted by what is guessed, known or not."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("user", sa.Column("disabled_at", TIME, nullable=True))
    op.drop_column("user", "failed_logins")
    op.drop_column("user", "locked_until")
    _extend_sessions()
    op.create_table(
        "known_browser",
        sa.Column("browser_sha256", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("last_login_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_known_browser_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("browser_sha256", "user_id", name=op.f("pk_known_browser")),
    )
    op.create_index(op.f("ix_known_browser_user_id"), "known_browser", ["user_id"])
    op.create_table(
        "password_reset",
        sa.Column("code_sha256", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_password_reset_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("code_sha256", name=op.f("pk_password_reset")),
        sa.UniqueConstraint("user_id", name=op.f("uq_password_reset_user_id")),
    )
    op.create_table(
        "guess_count",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("locked_until", TIME, nullable=True),
        sa.Column("last_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_guess_count")),
    )
    op.create_index(op.f("ix_guess_count_last_at"), "guess_count", ["last_at"])


def _extend_sessions() -> None:
    table = "login_session"
    op.add_column(table, sa.Column("id", sa.Text(), nullable=True))
    op.execute("UPDATE login_session SET id = substr(md5(random()::text || token_sha256), 1, 16)")
    op.alter_column(table, "id", nullable=False)
    op.create_unique_constraint(op.f("uq_login_session_id"), table, ["id"])
    op.add_column(table, sa.Column("browser", sa.Text(), server_default="", nullable=False))
    op.add_column(table, sa.Column("address", sa.Text(), server_default="", nullable=False))
    op.add_column(table, sa.Column("last_used_at", TIME, server_default=sa.text("now()"), nullable=False))


def downgrade() -> None:
    for table in ("guess_count", "password_reset", "known_browser"):
        op.drop_table(table)
    for column in ("last_used_at", "address", "browser", "id"):
        op.drop_column("login_session", column)
    # Earlier versions know no disabled users: they must not be able to log in again.
    op.execute('DELETE FROM api_token USING "user" u WHERE u.id = user_id AND u.disabled_at IS NOT NULL')
    op.execute("UPDATE \"user\" SET password_hash = '*' WHERE disabled_at IS NOT NULL")
    op.add_column("user", sa.Column("locked_until", TIME, nullable=True))
    op.add_column("user", sa.Column("failed_logins", sa.Integer(), server_default="0", nullable=False))
    op.drop_column("user", "disabled_at")
