"""Request and response bodies of join tokens."""

from dataclasses import asdict
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core import db
from app.core.account_models import JoinToken
from app.jobs.cluster.join_tokens import LIFETIME_MINUTES, MAX_MINUTES
from app.jobs.cluster.node_configuration import NodeConfiguration, hints

SECRET = {"format": "password"}


class JoinTokenRequest(BaseModel):
    """How long a new join token can be used."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"minutes": 60}]})

    minutes: int = Field(LIFETIME_MINUTES, ge=1, le=MAX_MINUTES, description="Minutes until it expires.")


class JoinTokenAnswer(BaseModel):
    """A join token, which is forgotten a week after it expired."""

    id: str
    state: Literal["unused", "used", "expired"]
    creator: str = Field(description="Name of who created it.")
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    node: str | None = Field(description="Name of the node that joined with it.")


class NewJoinTokenAnswer(JoinTokenAnswer):
    """A new join token, which is shown only here."""

    token: str = Field(description="Works once.", json_schema_extra={**SECRET})
    command: str = Field(description="What to run on the other machine.", json_schema_extra={**SECRET})
    hints: list[str] = Field(description="Why other machines cannot join yet, and what to do.")


class JoinRequest(BaseModel):
    """A join token, and the machine that becomes a node."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"token": "...", "name": "gpu-2", "revision": "0051"}]}
    )

    token: str
    name: str = Field(description="Name of the node: letters without accents, digits, dots, hyphens, underscores.")
    revision: str = Field(description="Schema of the database that the machine's version of Athanor expects.")


class NodeConfigurationAnswer(BaseModel):
    """What a node needs. The addresses name certificates by their names in `files`."""

    database_url: str = Field(json_schema_extra={**SECRET})
    redis_url: str = Field(json_schema_extra={**SECRET})
    data: str = Field(description="Path of the data directory on the machine of the panel.")
    key_sha256: str = Field(description="SHA-256 of keys/checkpoints.key in the data directory.")
    files: dict[str, str] = Field(description="Certificates and keys in PEM.", json_schema_extra={**SECRET})


def join_token_answer(row: JoinToken, creator: str) -> JoinTokenAnswer:
    """The response for a join token."""
    expired: Literal["unused", "expired"] = "expired" if row.expires_at <= db.now() else "unused"
    state = "used" if row.used_at is not None else expired
    return JoinTokenAnswer.model_validate({**vars(row), "state": state, "creator": creator})


def new_join_token_answer(row: JoinToken, creator: str, token: str, address: str) -> NewJoinTokenAnswer:
    """The response for a new join token; `address` is that of the panel, as its creator reached it."""
    command = f"athanor join {address} {token}"
    answer = join_token_answer(row, creator).model_dump()
    return NewJoinTokenAnswer(**answer, token=token, command=command, hints=hints(address))


def node_configuration_answer(configuration: NodeConfiguration) -> NodeConfigurationAnswer:
    """The response for a machine that becomes a node."""
    return NodeConfigurationAnswer(**asdict(configuration))
