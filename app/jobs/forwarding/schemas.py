"""Request and response bodies of forwarding."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.forwarding_models import JobForwarding
from app.jobs.forwarding import tracker_errors
from app.jobs.forwarding.trackers import Tracker

State = Literal["off", "forwarding", "failing", "complete"]


class ForwardingRequest(BaseModel):
    """The trackers to forward a job to, and those to forward it to no more."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"trackers": {"mlflow": True}}]})

    trackers: dict[str, bool] = Field({}, max_length=10, description="By name; what is left out stays.")


class ForwardingAnswer(BaseModel):
    """How far a job has been forwarded to a tracker of this installation."""

    tracker: str = Field(description="mlflow, wandb, swanlab or tensorboard.", examples=["mlflow"])
    title: str = Field(description="What the tracker is called.", examples=["MLflow"])
    target: str = Field(description="Where the tracker is.", examples=["https://mlflow.example.com (athanor)"])
    state: State = Field(description="Failing: the last try failed, and another one follows. Complete: so is the job.")
    step: int | None = Field(description="The last step that the tracker has.")
    url: str | None = Field(description="The page of the run there, if the tracker has pages.")
    forwarded_at: datetime | None = Field(description="The last time that the tracker took something.")
    error: str | None = Field(description="Why the last try failed; what a library says, in its words.")
    failed_at: datetime | None = Field(description="The last time that a try failed.")


def forwarding_answer(tracker: Tracker, row: JobForwarding | None) -> ForwardingAnswer:
    """The answer about a tracker; a job that was never forwarded there has no row."""
    row = row or JobForwarding(is_enabled=False, steps={}, remote={})
    url = str(row.remote.get("url") or "")
    return ForwardingAnswer(
        tracker=tracker.name,
        title=tracker.title,
        target=tracker.target,
        state=_state(row),
        step=max(row.steps.values(), default=None),
        url=url if url.startswith(("http://", "https://")) else None,
        forwarded_at=row.forwarded_at,
        error=tracker_errors.explain(row.error) if row.error else None,
        failed_at=row.failed_at,
    )


def _state(row: JobForwarding) -> State:
    if row.finished_at is not None:
        return "complete"
    if not row.is_enabled:
        return "off"
    return "failing" if row.error else "forwarding"
