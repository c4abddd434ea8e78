"""What the API says about checkpoints."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class CheckpointAnswer(BaseModel):
    """Saved weights at a step."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "06e9x2m4q8r7t5vw",
                    "job_id": "06e9x1aa3kb5c7de",
                    "step": 200,
                    "num_bytes": 4123904,
                    "metrics": {"loss": 3.41, "eval_loss": 3.52, "eval_bits_per_byte": 1.61},
                    "state": "ready",
                    "pinned": False,
                    "created_at": "2026-11-24T20:15:00Z",
                }
            ]
        },
    )

    id: str
    job_id: str
    step: int
    num_bytes: int
    metrics: dict[str, Any] = Field(description="The losses known at this step.")
    state: str = Field(description="ready, corrupt (its files differ from its manifest), deleting or deleted.")
    pinned: bool = Field(description="Its owner wants it kept.")
    created_at: datetime


class CheckpointDetail(CheckpointAnswer):
    """A checkpoint with its manifest: every file with size and hash, and what it was made from."""

    fence: int = Field(description="The attempt that wrote it.")
    manifest: dict[str, Any]
