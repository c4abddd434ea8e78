"""The actions offered for a failed job. Each is the request body of a new job, and a link to the form filled in."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints.conditions import usable_of
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
    "split_empty",
    "split_unnamed",
    "groups_missing",
    "corpus_short",
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
    """A new job that may work: `body` is the body of POST /api/v1/jobs, `form` the path of the form filled in."""

    id: str
    label: str
    body: dict[str, Any]
    form: str


def offered(session: Session, job: Job) -> list[Action]:
    """The actions for a failed job, the most promising first."""
    newest = select(Checkpoint).where(usable_of([job.id]))
    checkpoint = session.scalar(newest.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc()).limit(1))
    actions = []
    if checkpoint is not None and validation.is_resumable(checkpoint) and checkpoint.step < (job.max_steps or 0):
        actions += _continuations(job, checkpoint)
    if job.failure_code in OUT_OF_MEMORY:
        actions += _with_less_memory(job)
    return [*actions, _resubmit(job, "resubmit", _("Submit again"), {})]


def _continuations(job: Job, checkpoint: Checkpoint) -> list[Action]:
    if job.failure_code in DIVERGED:
        half = {"learning_rate": job.spec.learning_rate / 2}
        other = {"seed": job.spec.seed + 1}
        return [
            _continue(checkpoint, "half_learning_rate", _("Train further with half the learning rate"), half),
            _continue(checkpoint, "another_order", _("Train further with the samples in another order"), other),
        ]
    if job.failure_code in (*OUT_OF_MEMORY, *BAD_INPUT):
        return []
    return [_continue(checkpoint, "continue", _("Train further from step {step}", step=checkpoint.step), {})]


def _with_less_memory(job: Job) -> list[Action]:
    """Gradient checkpointing, if it is off: recovery has already halved the micro-batch as far as possible."""
    if job.spec.gradient_checkpointing:
        return []
    micro = job.adjustments.per_device_batch_size or job.spec.per_device_batch_size
    changes = {"gradient_checkpointing": True, "per_device_batch_size": micro}
    return [_resubmit(job, "gradient_checkpointing", _("Submit again with gradient checkpointing"), changes)]


def _continue(checkpoint: Checkpoint, name: str, label: str, changes: dict[str, Any]) -> Action:
    body = {"resume_from_checkpoint": checkpoint.id, **changes}
    return Action(name, label, body, _form({"from": checkpoint.id}, changes))


def _resubmit(job: Job, name: str, label: str, changes: dict[str, Any]) -> Action:
    return Action(name, label, {**job.spec.model_dump(), **changes}, _form({"like": job.id}, changes))


def _form(origin: dict[str, str], changes: dict[str, Any]) -> str:
    """The path of the form filled in from a job or checkpoint, with changed fields."""
    return f"/jobs/new?{urlencode(origin | {name: to_form_value(value) for name, value in changes.items()})}"
