"""Jobs and their checkpoints as objects of OpenAI's API."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, cast, literal
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.core import db, job_failures
from app.core.models import Checkpoint, Job
from app.core.openai_models import Submission
from app.jobs.attempts import progress
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.lifecycle import wait_reasons
from app.jobs.lifecycle.job_webhooks import JOB_PREFIX
from app.jobs.service import ResolvedRequest
from app.openai import models, objects
from app.openai.files import PREFIX as FILE_PREFIX
from app.openai.job_requests import wire_field
from trainer.spec import TrainSpec, recipe, recipe_names

CHECKPOINT_PREFIX = "ftckpt_"
DRY_RUN = "dry_run"  # the field of a request, and what its job has in place of an ID and a state
# What each of our states is called. OpenAI's API has eight words and no others.
STATUSES = {
    "queued": "queued",
    "starting": "running",
    "running": "running",
    "pausing": "pausing",
    "paused": "paused",
    "cancelling": "running",
    "recovering": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
WAITING_STATUSES = {"waiting": "validating_files", "failed": "failed", "cancelled": "cancelled"}
# What OpenAI calls the series that it has too.
METRICS = {
    "loss": "train_loss",
    "accuracy": "train_mean_token_accuracy",
    "eval_loss": "valid_loss",
    "eval_accuracy": "valid_mean_token_accuracy",
}


def jsonb(value: dict[str, Any]) -> ColumnElement[Any]:
    """A JSON object in a query."""
    return cast(literal(value, JSONB), JSONB)


def job_answer(session: Session, submission: Submission | None, job: Job | None) -> dict[str, Any]:
    """A job. At least one of the two exists."""
    row = submission or job
    assert row is not None
    common: dict[str, Any] = {
        "id": f"{JOB_PREFIX}{row.id}",
        "object": "fine_tuning.job",
        "created_at": objects.seconds(row.created_at),
        "organization_id": objects.ORGANIZATION,
        "integrations": [],
    }
    wanted = _planned(session, job) if job is not None else {}
    if submission is not None:
        wanted |= _request(submission)
    if job is not None:
        return {**common, **wanted, **_run(session, job)}
    assert submission is not None
    return {**common, **wanted, **_waiting(submission)}


def planned_answer(
    session: Session, details: dict[str, Any], job: ResolvedRequest, plan: dict[str, Any]
) -> dict[str, Any]:
    """A job that was planned and not created. It is `cancelled`, so that programs do not wait for it."""
    now = db.now()
    seconds = job.plan.figures.get("total_seconds")
    finish = None if seconds is None else objects.seconds(now + timedelta(seconds=seconds.value))
    names = ("model", "training_file", "validation_file")
    return {
        "id": f"{JOB_PREFIX}{DRY_RUN}",
        "object": "fine_tuning.job",
        "created_at": objects.seconds(now),
        "organization_id": objects.ORGANIZATION,
        "integrations": [],
        **{name: details[name] for name in names},
        "seed": job.spec.seed,
        "metadata": details["metadata"] or {},
        **_method(details["method"], _hyperparameters(job.spec)),
        "status": "cancelled",
        "fine_tuned_model": None,
        "result_files": [],
        "finished_at": objects.seconds(now),
        "estimated_finish": finish,
        "trained_tokens": None,
        "error": None,
        "athanor": {"state": DRY_RUN, "plan": plan},
    }


def _request(submission: Submission) -> dict[str, Any]:
    """What was asked for, in the words of the request."""
    details: dict[str, Any] = submission.details
    names = ("model", "training_file", "validation_file", "seed")
    return {
        **{name: details[name] for name in names},
        "metadata": details["metadata"] or {},
        **_method(details["method"], details["hyperparameters"]),
    }


def _method(kind: str, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    common = {name: value for name, value in hyperparameters.items() if name != "beta"}
    return {"hyperparameters": common, "method": {"type": kind, kind: {"hyperparameters": hyperparameters}}}


def _waiting(submission: Submission) -> dict[str, Any]:
    failure: dict[str, Any] = submission.failure
    is_paused = submission.state == "waiting" and submission.desired == "pause"
    param = None if failure.get("field") is None else wire_field(failure["field"])
    error = {"code": failure["code"], "message": failure["message"], "param": param} if failure else None
    return {
        "status": "paused" if is_paused else WAITING_STATUSES[submission.state],
        "fine_tuned_model": None,
        "result_files": [],
        "finished_at": objects.seconds(submission.finished_at),
        "estimated_finish": None,
        "trained_tokens": None,
        "error": error,
        "athanor": {"state": submission.state},
    }


def _planned(session: Session, job: Job) -> dict[str, Any]:
    """What the spec of a job says, in the words of a request."""
    spec = job.spec
    files = [f"{FILE_PREFIX}{corpus_id}" for corpus_id in (*spec.corpora, *spec.validation_corpora[:1])]
    kind = "dpo" if spec.objective == "dpo" else "supervised"
    return {
        "model": models.ModelNames(session).base(spec),
        "training_file": files[0],
        "validation_file": files[len(spec.corpora)] if spec.validation_corpora else None,
        "seed": spec.seed,
        "metadata": {},
        **_method(kind, _hyperparameters(spec)),
    }


def _hyperparameters(spec: TrainSpec) -> dict[str, Any]:
    epochs = spec.num_train_epochs
    usual = spec.learning_rate
    if spec.recipe in recipe_names():
        usual = recipe(spec.recipe, is_from_scratch=spec.base_model is None)["learning_rate"]
    settings: dict[str, Any] = {
        "n_epochs": "auto" if epochs is None else math.ceil(epochs),
        "batch_size": spec.train_batch_size,
        "learning_rate_multiplier": spec.learning_rate / usual,
    }
    return {**settings, "beta": spec.dpo_beta} if spec.objective == "dpo" else settings


def _run(session: Session, job: Job) -> dict[str, Any]:
    """How far a job is."""
    has_succeeded = job.state == "succeeded"
    tuned = models.ModelNames(session).tuned(job.id, job.name, job.spec)
    return {
        "status": status(job),
        "fine_tuned_model": tuned if has_succeeded else None,
        "result_files": [f"{FILE_PREFIX}{job.id}"] if has_succeeded else [],
        "finished_at": objects.seconds(job.finished_at),
        "estimated_finish": _estimated_finish(job),
        "trained_tokens": job.step * job.spec.tokens_per_step if has_succeeded else None,
        "error": _error(job),
        "athanor": {
            "state": job.state,
            "step": job.step,
            "max_steps": job.max_steps,
            "phase": job.progress.phase,
            "wait": None if (wait := wait_reasons.describe(job)) is None else wait["message"],
        },
    }


def status(job: Job) -> str:
    """Which of OpenAI's words is true. A pause that was requested and not seen yet is one that is beginning."""
    if job.desired == "pause" and job.state in ("starting", "running", "recovering"):
        return "pausing"
    return STATUSES[job.state]


def _estimated_finish(job: Job) -> int | None:
    if job.finished_at is not None or job.state != "running":
        return None
    left = progress.eta_seconds(job.progress, effective_spec(job), job.step)
    return None if left is None else objects.seconds(db.now() + timedelta(seconds=left))


def _error(job: Job) -> dict[str, Any] | None:
    if job.failure_code is None:
        return None
    failure = job_failures.describe(job.failure_code, job.failure)
    field = job.failure.get("field")
    param = wire_field(str(field)) if field is not None else None
    return {"code": failure["code"], "message": f"{failure['cause']} {failure['next_step']}", "param": param}


def checkpoint_answers(session: Session, job: Job, rows: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """Checkpoints of a job."""
    tuned = models.ModelNames(session).tuned(job.id, job.name, job.spec)
    return [
        {
            "id": f"{CHECKPOINT_PREFIX}{row.id}",
            "object": "fine_tuning.job.checkpoint",
            "created_at": objects.seconds(row.created_at),
            "fine_tuning_job_id": f"{JOB_PREFIX}{job.id}",
            "fine_tuned_model_checkpoint": models.checkpoint_name(tuned, row.step),
            "step_number": row.step,
            "metrics": metrics({"step": row.step, **row.metrics}),
        }
        for row in rows
    ]


def metrics(values: dict[str, Any]) -> dict[str, Any]:
    """The values of series by OpenAI's names for them; our validation is always over all held-out data."""
    named = {METRICS.get(name, name): value for name, value in values.items()}
    full = {f"full_{name}": named[name] for name in ("valid_loss", "valid_mean_token_accuracy") if name in named}
    return {**named, **full}
