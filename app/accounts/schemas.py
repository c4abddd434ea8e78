"""The JSON of accounts."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.models import ApiToken, User
from app.core.principal import Principal, Scope


def _body(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})


class SetupRequest(BaseModel):
    """What the first link asks for."""

    model_config = _body({"code": "...", "name": "Alice", "password": "a furnace that feeds itself"})

    code: str
    name: str
    password: str


class LoginRequest(BaseModel):
    """A name and its password."""

    model_config = _body({"name": "Alice", "password": "a furnace that feeds itself"})

    name: str
    password: str


class UserRequest(BaseModel):
    """Somebody new, with an initial password."""

    model_config = _body({"name": "Bob", "password": "changed at the first visit"})

    name: str
    password: str


class TokenRequest(BaseModel):
    """A key for a program."""

    model_config = _body({"name": "nightly training", "scopes": ["read", "submit"]})

    name: str
    scopes: list[Scope] = Field(description="read: look; submit: upload, train, cancel; admin: tokens and people.")


class MeAnswer(BaseModel):
    """Who this request comes from, and what it may do."""

    id: str
    name: str
    role: Literal["owner", "member"]
    scopes: list[str]


class UserAnswer(BaseModel):
    """Somebody who can log in."""

    id: str
    name: str
    role: Literal["owner", "member"]
    created_at: datetime


class TokenAnswer(BaseModel):
    """A key for programs, without its secret."""

    id: str
    name: str
    prefix: str = Field(description="How the secret begins.")
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None


class NewTokenAnswer(TokenAnswer):
    """A new key, with its secret: the only time that it is shown."""

    token: str


def me_answer(principal: Principal) -> MeAnswer:
    """The principal as it is answered."""
    return MeAnswer.model_validate(
        {"id": principal.user_id, "name": principal.name, "role": principal.role, "scopes": sorted(principal.scopes)}
    )


def user_answer(user: User) -> UserAnswer:
    """A row as it is answered."""
    return UserAnswer.model_validate(user, from_attributes=True)


def token_answer(token: ApiToken) -> TokenAnswer:
    """A row as it is answered."""
    return TokenAnswer.model_validate(token, from_attributes=True)
