"""What the routes that rename something share: the body, and its errors."""

from pydantic import BaseModel, ConfigDict, Field

RENAMING_ERRORS = ("name_missing", "name_too_long", "character_invalid")


class NewName(BaseModel):
    """A new name."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Genesis, cleaned"}]})

    name: str = Field(max_length=1_000, description="How it is listed from now on: at most 120 characters.")
