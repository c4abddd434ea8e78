"""The tables of accounts, without logic: users, sessions, tokens, one-time codes, invitations, join tokens, guesses."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.model_base import Base, new_id, one_of
from app.core.names import comparison_key
from app.core.roles import ROLES


def _name_key(context: Any) -> str:
    return comparison_key(context.get_current_parameters()["name"])


class User(Base):
    """An account. `role` is one of app/core/roles.py."""

    __tablename__ = "user"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True, default=_name_key)  # equal for names that people confuse
    password_hash: Mapped[str | None]  # None: they log in by their external identity
    role: Mapped[str]
    # What they may take at most (app/core/quotas.py); None: as much as there is.
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    quota_jobs: Mapped[int | None]
    quota_gpu_hours: Mapped[float | None]
    disabled_at: Mapped[datetime | None]  # since then neither passwords nor sessions nor tokens are accepted
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint(one_of("role", ROLES), name="role"),)


class SetupCode(Base):
    """The one-time code of the first link, hashed; deleted once the owner exists."""

    __tablename__ = "setup_code"

    code_sha256: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LoginSession(Base):
    """A browser that is logged in. The cookie holds the token; only its hash is stored."""

    __tablename__ = "login_session"

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    browser: Mapped[str] = mapped_column(server_default="")  # such as "Firefox, Linux"
    address: Mapped[str] = mapped_column(server_default="")  # the client's, at login
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class KnownBrowser(Base):
    """A browser in which a user has logged in: its wrong passwords are counted apart from those of strangers."""

    __tablename__ = "known_browser"

    browser_sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True, index=True)
    last_login_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PasswordReset(Base):
    """The one-time code of a link with which a user chooses a new password, hashed."""

    __tablename__ = "password_reset"

    code_sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), unique=True)
    expires_at: Mapped[datetime]


class ExternalIdentity(Base):
    """Who a user is at an OpenID Connect provider: its URL and its name for the person, which never changes."""

    __tablename__ = "external_identity"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"))
    issuer: Mapped[str]
    subject: Mapped[str]  # the claim `sub`
    label: Mapped[str]  # what the account page shows: the name or e-mail address there, as of the last login
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_login_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("issuer", "subject"), UniqueConstraint("user_id", "issuer"))


class OidcLogin(Base):
    """A login at an OpenID Connect provider that a browser has begun; deleted when it returns, so that it is used once.

    With a `user_id` it does not log in: it connects the identity with this user, who is logged in.
    """

    __tablename__ = "oidc_login"

    state_sha256: Mapped[str] = mapped_column(primary_key=True)
    browser_sha256: Mapped[str]  # of the cookie of the browser that began
    network: Mapped[str] = mapped_column(index=True)  # the client's
    user_id: Mapped[str | None] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    nonce: Mapped[str]
    code_verifier: Mapped[str]
    path: Mapped[str]  # of the page to show afterwards
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Invitation(Base):
    """The one-time code of a link with which somebody creates an account of this role, hashed; deleted once used."""

    __tablename__ = "invitation"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    code_sha256: Mapped[str] = mapped_column(unique=True)
    inviter_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    role: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]

    __table_args__ = (CheckConstraint(one_of("role", ROLES), name="role"),)


class JoinToken(Base):
    """A token with which a machine becomes a node, once, hashed. Kept for a while: `node` is what joined with it."""

    __tablename__ = "join_token"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    token_sha256: Mapped[str] = mapped_column(unique=True)
    creator_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    node: Mapped[str | None]  # the name of the node


class GuessCount(Base):
    """Wrong guesses of a password, code or token. `key` is a kind and a short hash, so the rows are limited."""

    __tablename__ = "guess_count"

    key: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(server_default="0")
    locked_until: Mapped[datetime | None]
    last_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class ApiToken(Base):
    """A key for programs: shown once, stored hashed, limited to scopes (read, submit, admin)."""

    __tablename__ = "api_token"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
