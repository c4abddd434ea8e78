"""Request and response JSON of model endpoints."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.core.synthetic_models import ModelEndpoint

Price = Annotated[float | None, Field(ge=0, le=1_000_000)]


class ModelEndpointRequest(BaseModel):
    """A model behind an API like OpenAI's."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {
                    "name": "teacher",
                    "base_url": "https://api.example.com/v1",
                    "model": "large",
                    "api_key": "sk-…",
                    "input_price": 0.5,
                    "output_price": 1.5,
                }
            ]
        },
    )

    name: str = Field(min_length=1, max_length=120, description="Name in lists.")
    base_url: str = Field(
        min_length=1, max_length=1900, description="Address to which `/chat/completions` is added; https."
    )
    model: str = Field(min_length=1, max_length=200, description="What the endpoint calls the model.")
    api_key: str | None = Field(
        None, max_length=2000, description="Is sent with each request, and never answered. Null keeps the present one."
    )
    input_price: Price = Field(None, description="Price of a million tokens of prompts, to count costs.")
    output_price: Price = Field(None, description="Price of a million generated tokens.")


class ModelEndpointAnswer(BaseModel):
    """A model endpoint, without its key."""

    id: str
    name: str
    base_url: str
    model: str
    key_hint: str = Field(description="The last four characters of the key; empty without one.")
    input_price: float | None
    output_price: float | None
    created_at: datetime


def endpoint_answer(endpoint: ModelEndpoint) -> ModelEndpointAnswer:
    """The response for a row."""
    same = ("id", "name", "base_url", "model", "input_price", "output_price", "created_at")
    key = endpoint.api_key
    hint = "" if not key else f"…{key[-4:]}" if len(key) >= 12 else "…"
    return ModelEndpointAnswer(**{name: getattr(endpoint, name) for name in same}, key_hint=hint)
