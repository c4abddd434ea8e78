"""Shapes of sharing."""

from pydantic import BaseModel, ConfigDict, Field

from app.core.sharing import MAX_USERS


class SharingRequest(BaseModel):
    """With whom something is shared from now on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"everyone": False, "users": ["Bob"]}]})

    everyone: bool = Field(False, description="With everyone of the installation.")
    users: list[str] = Field([], max_length=MAX_USERS, description="Names of users.")


class SharingAnswer(BaseModel):
    """With whom something is shared."""

    everyone: bool
    users: list[str] = Field(description="Names of users.")
