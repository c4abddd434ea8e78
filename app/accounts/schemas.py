"""Request and response bodies of accounts."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.accounts.invitations import MAX_DAYS
from app.accounts.removal import Belongings
from app.core import quotas
from app.core.account_models import ApiToken, Invitation, LoginSession, User
from app.core.principal import Principal, Scope
from app.core.quotas import Quotas, UserUsage
from app.core.roles import Role


def _body(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})


class SetupRequest(BaseModel):
    """The code of the setup link, and the owner's name and password."""

    model_config = _body({"code": "...", "name": "Alice", "password": "correct horse battery staple"})

    code: str
    name: str
    password: str


class LoginRequest(BaseModel):
    """A user's name and password."""

    model_config = _body({"name": "Alice", "password": "correct horse battery staple"})

    name: str
    password: str


class PasswordRequest(BaseModel):
    """The present password and a new one."""

    model_config = _body({"present_password": "correct horse battery staple", "password": "four unrelated words here"})

    present_password: str
    password: str
    revoke_tokens: bool = Field(True, description="Revoke all API tokens of the user, too.")


class UserRequest(BaseModel):
    """A new user with an initial password."""

    model_config = _body({"name": "Bob", "password": "changed at the first visit", "role": "member"})

    name: str
    password: str
    role: Role = "member"


class RoleRequest(BaseModel):
    """The new role of a user."""

    model_config = _body({"role": "viewer"})

    role: Role


class PasswordResetRequest(BaseModel):
    """The code of a reset link, and a new password."""

    model_config = _body({"code": "...", "password": "four unrelated words here"})

    code: str
    password: str
    revoke_tokens: bool = Field(True, description="Revoke all API tokens of the user, too.")


class TokenRequest(BaseModel):
    """The name and scopes of a new API token."""

    model_config = _body({"name": "nightly training", "scopes": ["read", "submit"]})

    name: str
    scopes: list[Scope] = Field(
        description="read: view; submit: upload, train and cancel; admin: manage tokens and users."
    )


class MeAnswer(BaseModel):
    """The user who sent the request, and the scopes of the session or token."""

    id: str
    name: str
    role: Role
    scopes: list[str]


class UserAnswer(BaseModel):
    """A user."""

    id: str
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None = Field(description="Since then the user can neither log in nor use tokens.")


class UserUsageAnswer(BaseModel):
    """What a user takes, and may take."""

    disk_bytes: int
    running_jobs: int
    gpu_hours: float = Field(description="Of the last thirty days.")
    quotas: Quotas


class UserDetail(UserAnswer):
    """A user, and how much they have."""

    num_jobs: int
    num_checkpoints: int
    num_corpora: int
    num_tokenizers: int
    num_models: int
    num_conversations: int
    num_deployments: int
    num_unfinished: int = Field(description="Jobs and background tasks that have not finished.")


class InvitationRequest(BaseModel):
    """For whom a new invitation is: the role of the account, and how long it can be used."""

    model_config = _body({"role": "member", "days": 7})

    role: Role = "member"
    days: int = Field(7, ge=1, le=MAX_DAYS, description="Days until it expires.")


class AcceptRequest(BaseModel):
    """The code of an invitation, and the name and password of the new account."""

    model_config = _body({"code": "...", "name": "Carol", "password": "four unrelated words here"})

    code: str
    name: str
    password: str


class InvitationAnswer(BaseModel):
    """An invitation that can be used."""

    id: str
    role: Role
    inviter: str = Field(description="Name of who invites.")
    created_at: datetime
    expires_at: datetime


class NewInvitationAnswer(InvitationAnswer):
    """A new invitation with its link, which is shown only here."""

    link: str = Field(description="Works once.", json_schema_extra={"format": "password"})


class ResetLinkAnswer(BaseModel):
    """A link with which a user chooses a new password."""

    link: str = Field(description="Works once, and is shown only here.", json_schema_extra={"format": "password"})
    expires_at: datetime


class SessionAnswer(BaseModel):
    """A browser in which the user is logged in."""

    id: str
    browser: str = Field(description="Browser and system, such as “Firefox, Linux”; empty if it did not say.")
    address: str = Field(description="Address of the client at its login.")
    created_at: datetime
    last_used_at: datetime = Field(description="Accurate to a minute.")
    expires_at: datetime
    is_present: bool = Field(description="Whether it is the session that sent the request.")


class TokenAnswer(BaseModel):
    """An API token, without its secret."""

    id: str
    name: str
    prefix: str = Field(description="First characters of the secret.")
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None


class NewTokenAnswer(TokenAnswer):
    """A new API token with its secret, which is shown only here."""

    token: str = Field(json_schema_extra={"format": "password"})


def me_answer(principal: Principal) -> MeAnswer:
    """The response for a principal."""
    return MeAnswer.model_validate(
        {"id": principal.user_id, "name": principal.name, "role": principal.role, "scopes": sorted(principal.scopes)}
    )


def usage_answer(user: User, usage: UserUsage) -> UserUsageAnswer:
    """What a user takes, and may take."""
    return UserUsageAnswer(**vars(usage), quotas=quotas.of_user(user))


def user_answer(user: User) -> UserAnswer:
    """The response for a user."""
    return UserAnswer.model_validate(user, from_attributes=True)


def user_detail(user: User, belongings: Belongings) -> UserDetail:
    """The response for a user with what they have."""
    return UserDetail.model_validate({**user_answer(user).model_dump(), **vars(belongings)})


def invitation_answer(row: Invitation, inviter: str) -> InvitationAnswer:
    """The response for an invitation."""
    return InvitationAnswer.model_validate({**vars(row), "inviter": inviter})


def session_answer(row: LoginSession, principal: Principal) -> SessionAnswer:
    """The response for a session of the principal."""
    return SessionAnswer(
        id=row.id,
        browser=row.browser,
        address=row.address,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        is_present=row.id == principal.session_id,
    )


def token_answer(token: ApiToken) -> TokenAnswer:
    """The response for an API token."""
    return TokenAnswer.model_validate(token, from_attributes=True)
