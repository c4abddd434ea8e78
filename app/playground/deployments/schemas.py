"""Request and response JSON of deployments."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Access = Literal["owner", "users", "everyone"]
_EXAMPLE: dict[str, Any] = {
    "name": "helpdesk",
    "model": "06e9x2m4q8r7t5vw",
    "access": "everyone",
    "requests_per_minute": 60,
}


class DeploymentSettings(BaseModel):
    """Where a deployment is kept, and who may call it."""

    num_replicas: Annotated[int, Field(description="Nodes that keep the model in memory.", ge=1, le=64)] = 1
    nodes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]],
        Field(description="Names of nodes that may keep it; empty: any node.", max_length=64),
    ] = []
    access: Annotated[
        Access, Field(description="Who may call it: its owner only, some users besides, or everyone.")
    ] = "owner"
    users: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]],
        Field(description="With the access `users`: their names.", max_length=200),
    ] = []
    requests_per_minute: Annotated[
        int | None, Field(description="Limit of each API token and session; null: none.", ge=1, le=100_000)
    ] = None


class DeploymentRequest(DeploymentSettings):
    """A model to be deployed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    name: str = Field(description="What callers name as their model; nobody else's deployment has it.")
    model: str = Field(max_length=64, description="ID of a checkpoint or of an imported base model.")


class DeploymentChange(BaseModel):
    """What is to change; fields that are left out, or null, stay, but for `requests_per_minute`, whose null is none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"model": "06e9x2m4q8r7t5vx"}]})

    model: Annotated[
        str | None, Field(max_length=64, description="Calls go to the old model until this one is loaded.")
    ] = None
    num_replicas: Annotated[int | None, Field(ge=1, le=64)] = None
    nodes: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]] | None, Field(max_length=64)] = None
    access: Access | None = None
    users: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]] | None, Field(max_length=200)] = None
    requests_per_minute: Annotated[int | None, Field(ge=1, le=100_000)] = None


class ReplicaAnswer(BaseModel):
    """A node that keeps, or loads, the model."""

    node: str
    state: Literal["loading", "ready", "failed"]
    is_current: bool  # false while it still serves the model before the last change
    message: str | None  # why it failed
    loading_percent: int | None  # of the deployment's model, while it is loaded


class UsageAnswer(BaseModel):
    """The calls of some time."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    first_token_p50_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None


class DeploymentAnswer(BaseModel):
    """A deployment as its owner, or who may call it, reads it."""

    id: str
    name: str
    model: str
    is_mine: bool
    state: Literal["loading", "ready", "failed"]
    replicas: list[ReplicaAnswer]
    num_replicas: int
    nodes: list[str]
    removed_nodes: Annotated[
        list[str], Field(description="Those of `nodes` that were removed. A change of `nodes` has to leave them out.")
    ]
    access: Access
    users: list[str]
    requests_per_minute: int | None
    last_day: UsageAnswer
    created_at: datetime
    updated_at: datetime


class HourAnswer(UsageAnswer):
    """The calls of an hour."""

    hour: datetime


def state_of(replicas: list[ReplicaAnswer]) -> Literal["loading", "ready", "failed"]:
    """Whether a deployment answers at once."""
    states = {replica.state for replica in replicas}
    if "ready" in states:
        return "ready"
    return "failed" if states == {"failed"} else "loading"
