"""What the API says about checkpoints."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.checkpoints import retention_reasons
from app.core.models import Checkpoint


class CheckpointAnswer(BaseModel):
    """Saved weights at a step."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "06e9x2m4q8r7t5vw",
                    "job_id": "06e9x1aa3kb5c7de",
                    "shared_by": None,
                    "name": "first that rhymes",
                    "tags": ["verse"],
                    "notes": "",
                    "step": 200,
                    "num_bytes": 4123904,
                    "metrics": {"loss": 3.41, "eval_loss": 3.52, "eval_bits_per_byte": 1.61},
                    "state": "ready",
                    "pinned": False,
                    "kept": ["newest", "best"],
                    "created_at": "2026-11-24T20:15:00Z",
                }
            ]
        },
    )

    id: str
    job_id: str
    shared_by: str | None = Field(description="Name of the user who shares it; null for your own.")
    name: str = Field(description="A name of its own; empty for most.")
    tags: list[str]
    notes: str
    step: int
    num_bytes: int
    metrics: dict[str, Any] = Field(description="Metrics at this step.")
    state: Literal["ready", "corrupt"] = Field(description="corrupt: the files differ from what was saved.")
    pinned: bool = Field(description="Whether a user pinned it.")
    kept: list[Literal["newest", "best", "pinned", "regular", "origin", "deployed"]] = Field(
        description="Why it is kept. Without a reason it is deleted at its job's next save, unless the job keeps all."
    )
    created_at: datetime


class CheckpointDetail(CheckpointAnswer):
    """A checkpoint with its manifest: every file with size and hash, and what it was made from."""

    fence: int = Field(description="Number of the attempt that wrote it.")
    manifest: dict[str, Any]


_PLAIN = ("id", "job_id", "name", "tags", "notes", "step", "num_bytes", "metrics", "state", "pinned", "created_at")


def checkpoint_answers(session: Session, rows: Sequence[Checkpoint]) -> list[CheckpointAnswer]:
    """The responses for checkpoints, each with the reasons why it is kept."""
    reasons = retention_reasons.reasons(session, {row.job_id for row in rows})
    return [CheckpointAnswer.model_validate({**_plain(row), "kept": reasons.get(row.id, [])}) for row in rows]


def checkpoint_detail(session: Session, row: Checkpoint) -> CheckpointDetail:
    """The response for one checkpoint, with its manifest."""
    reasons = retention_reasons.reasons(session, [row.job_id]).get(row.id, [])
    return CheckpointDetail.model_validate(
        {**_plain(row), "kept": reasons, "fence": row.fence, "manifest": row.manifest.model_dump(exclude_unset=True)}
    )


def _plain(row: Checkpoint) -> dict[str, Any]:
    return {name: getattr(row, name) for name in (*_PLAIN, "shared_by")}
