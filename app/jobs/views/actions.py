"""What can be done about a failed job: each action is the body of another job, and the form filled in with it."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.i18n import _
from app.core.models import Checkpoint, Job
from app.jobs.planning import validation
from app.jobs.views.form import to_form_value

DIVERGED = ("nan_loss", "loss_diverged")
OUT_OF_MEMORY = ("oom_gpu", "oom_host")
BAD_INPUT = (
    "config_invalid",
    "data_empty",
    "data_short",
    "records_few",
    "records_empty",
    "label_unknown",
    "labels_one",
    "answers_equal",
    "chat_template_unusable",
    "base_damaged",
    "vocab_too_large",
    "tokenizer_mismatch",
    "data_changed",
    "check_failed",
)


@dataclass(frozen=True)
class Action:
    """One way to continue: `given` is the body of POST /api/v1/jobs, `form` the page where the form is filled in."""

    id: str
    label: str
    given: dict[str, Any]
    form: str


def offered(session: Session, job: Job) -> list[Action]:
    """The actions for a failed job, the most promising first."""
    newest = select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.state == "ready")
    saved = session.scalar(newest.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc()).limit(1))
    actions = []
    if saved is not None and validation.is_resumable(saved) and saved.step < job.max_steps:
        actions += _from_checkpoint(job, saved)
    if job.failure_code in OUT_OF_MEMORY:
        actions += _with_less_memory(job)
    return [*actions, _again(job, "resubmit", _("Submit again"), {})]


def _from_checkpoint(job: Job, saved: Checkpoint) -> list[Action]:
    if job.failure_code in DIVERGED:
        half = {"learning_rate": job.spec.learning_rate / 2}
        other = {"seed": job.spec.seed + 1}
        return [
            _onward(saved, "half_learning_rate", _("Go on with half the learning rate"), half),
            _onward(saved, "another_order", _("Go on with another order of the text"), other),
        ]
    if job.failure_code in (*OUT_OF_MEMORY, *BAD_INPUT):
        return []
    return [_onward(saved, "continue", _("Go on from step {step}", step=saved.step), {})]


def _with_less_memory(job: Job) -> list[Action]:
    """What remains to try: a job fails for lack of memory only after its micro-batch was halved as far as possible."""
    if job.spec.gradient_checkpointing:
        return []
    micro = job.adjustments.per_device_batch_size or job.spec.per_device_batch_size
    thrifty = {"gradient_checkpointing": True, "per_device_batch_size": micro}
    return [_again(job, "gradient_checkpointing", _("Again with gradient checkpointing"), thrifty)]


def _onward(saved: Checkpoint, name: str, label: str, changed: dict[str, Any]) -> Action:
    return Action(name, label, {"resume_from_checkpoint": saved.id, **changed}, _form({"from": saved.id}, changed))


def _again(job: Job, name: str, label: str, changed: dict[str, Any]) -> Action:
    return Action(name, label, {**job.spec.model_dump(), **changed}, _form({"like": job.id}, changed))


def _form(start: dict[str, str], changed: dict[str, Any]) -> str:
    """The address of the form, filled in."""
    return f"/jobs/new?{urlencode(start | {name: to_form_value(value) for name, value in changed.items()})}"
