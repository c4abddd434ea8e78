"""Identities at OpenID Connect providers, logins there that have begun, and users without a password."""

import secrets
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from pwdlib import PasswordHash

revision: str = "0045"
down_revision: str | None = "0046"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.alter_column("user", "password_hash", nullable=True)
    op.create_table(
        "external_identity",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_login_at", TIME),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_external_identity_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_external_identity")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_external_identity_issuer_subject")),
        sa.UniqueConstraint("user_id", "issuer", name=op.f("uq_external_identity_user_id_issuer")),
    )
    op.create_table(
        "oidc_login",
        sa.Column("state_sha256", sa.Text(), nullable=False),
        sa.Column("browser_sha256", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text()),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("code_verifier", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_oidc_login_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("state_sha256", name=op.f("pk_oidc_login")),
    )
    for column in ("network", "user_id", "expires_at"):
        op.create_index(op.f(f"ix_oidc_login_{column}"), "oidc_login", [column])


def downgrade() -> None:
    """Users without a password get one that nobody knows; a reset link lets them choose another."""
    unknown = PasswordHash.recommended().hash(secrets.token_urlsafe(32))
    statement = sa.text('UPDATE "user" SET password_hash = :unknown WHERE password_hash IS NULL')
    op.get_bind().execute(statement, {"unknown": unknown})
    op.alter_column("user", "password_hash", nullable=False)
    op.drop_table("oidc_login")
    op.drop_table("external_identity")
