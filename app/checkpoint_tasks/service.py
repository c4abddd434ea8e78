"""The verbs of checkpoint tasks, which are exports and evaluations: the only writer of their table."""

import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from app.base_models import limits
from app.base_models import service as base_models
from app.checkpoint_tasks.schemas import EvaluationRequest, ExportRequest
from app.checkpoints import service as checkpoints
from app.core import paging, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import CheckpointTaskOptions, FailureReason, StepsDone
from app.core.models import Checkpoint, CheckpointTask, Corpus, ImportedModel, Job
from app.core.principal import Principal, visible, visible_to
from app.corpora import service as corpora_service
from trainer.corpus_kinds import EVALUATION_KINDS
from trainer.limits import Limit, Traits, limit
from trainer.spec import TrainSpec

OPEN = ("queued", "running")
MAX_STARTS = 3
LOST_AFTER = timedelta(seconds=60)  # a running task that gave no sign for so long is lost
REANNOUNCE_AFTER = timedelta(seconds=10)  # a queued one is announced again
MAX_OPEN = 20  # of one user


# ---- for people -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """What is exported or evaluated: a checkpoint with its job's spec, or an imported base model."""

    checkpoint: Checkpoint | None
    model: ImportedModel | None
    spec: TrainSpec | None  # of the checkpoint's job
    traits: Traits

    @property
    def formats(self) -> list[str]:
        """The formats that it can be exported in."""
        fits = {
            "safetensors": True,
            "adapter": self.spec is not None and self.spec.tuning != "full",
            "gguf": limit(self.traits, "gguf") is None,
        }
        return [name for name, is_fit in fits.items() if is_fit]


def export(session: Session, *, principal: Principal, request: ExportRequest) -> CheckpointTask:
    """Queue an export. Raises at the field that does not fit."""
    exported = subject(session, principal=principal, subject_id=request.checkpoint, for_update=True)
    if request.format == "gguf":
        limits.require(exported.traits, "gguf", "format")
    if request.format == "adapter" and exported.model is not None:
        raise bad_field("format", "format_unfit", _("An imported model has no adapter. Choose another format."))
    if request.format not in exported.formats:
        reason = Limit(code="adapter_missing")
        raise bad_field("format", reason.code, limits.sentence(reason))
    return _queue(session, principal, exported, "export", request)


def evaluate(session: Session, *, principal: Principal, request: EvaluationRequest) -> CheckpointTask:
    """Queue an evaluation on corpora. Raises at the field that does not fit."""
    evaluated = subject(session, principal=principal, subject_id=request.checkpoint, for_update=True)
    limits.require(evaluated.traits, "evaluate", "checkpoint")
    for corpus in corpora_service.require_ready_corpora(session, principal=principal, ids=request.corpora):
        if corpus.kind not in EVALUATION_KINDS:
            values = {"name": corpus.name, "kind": corpus.kind, "kinds": ", ".join(EVALUATION_KINDS)}
            message = _("The corpus “{name}” is of the kind {kind}; choose one of {kinds}.", **values)
            raise bad_field("corpora", "kind_unfit", message)
    return _queue(session, principal, evaluated, "evaluation", request)


def subject(session: Session, *, principal: Principal, subject_id: str, for_update: bool = False) -> Subject:
    """A checkpoint whose files exist, or an imported model that is ready. Raises at `checkpoint`."""
    model = base_models.find(session, principal=principal, model_id=subject_id, for_update=for_update)
    if model is not None:
        base_models.check_ready(model, "checkpoint")
        return Subject(None, model, None, model.facts)
    try:
        checkpoint = checkpoints.get(session, principal=principal, checkpoint_id=subject_id, for_update=for_update)
    except PanelError as error:
        raise bad_field("checkpoint", "checkpoint_unknown", error.message) from error
    if checkpoint.state != "ready":
        raise bad_field("checkpoint", "checkpoint_corrupt", _("The files of this checkpoint are damaged."))
    spec = session.get_one(Job, checkpoint.job_id).spec
    return Subject(checkpoint, None, spec, limits.traits_of_checkpoints(session, spec))


def _queue(
    session: Session, principal: Principal, of: Subject, kind: str, request: ExportRequest | EvaluationRequest
) -> CheckpointTask:
    open_tasks = select(func.count()).where(
        CheckpointTask.owner_id == principal.user_id, CheckpointTask.state.in_(OPEN)
    )
    if (session.scalar(open_tasks) or 0) >= MAX_OPEN:
        message = _(
            "You have {count} unfinished exports and evaluations. Wait for one to finish, or cancel one.",
            count=MAX_OPEN,
        )
        raise PanelError(429, "works_open", message)
    task = CheckpointTask(
        owner_id=principal.user_id,
        checkpoint_id=of.checkpoint.id if of.checkpoint is not None else None,
        model_id=of.model.id if of.model is not None else None,
        kind=kind,
        options=CheckpointTaskOptions(**request.model_dump(exclude={"checkpoint"})),
    )
    session.add(task)
    session.flush()
    _enqueue(session, task.id)
    return task


def get(session: Session, *, principal: Principal, task_id: str, for_update: bool = False) -> CheckpointTask:
    """A task the user may see. Raises 404."""
    return visible(session, CheckpointTask, task_id, principal=principal, for_update=for_update)


def list_tasks(
    session: Session,
    *,
    principal: Principal,
    subject_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> tuple[list[CheckpointTask], str | None]:
    """The user's tasks, of one checkpoint or imported model or of all, newest first; the cursor of the next page."""
    query = select(CheckpointTask).where(visible_to(CheckpointTask.owner_id, principal))
    if subject_id is not None:
        query = query.where(or_(CheckpointTask.checkpoint_id == subject_id, CheckpointTask.model_id == subject_id))
    return paging.newest(session, query, CheckpointTask.id, limit, after)


def cancel(session: Session, *, principal: Principal, task_id: str) -> CheckpointTask:
    """Cancel the task; its process exits within two seconds. No-op if it has already finished."""
    task = get(session, principal=principal, task_id=task_id, for_update=True)
    if task.state in OPEN:
        task.state, task.finished_at = "cancelled", func.now()
        session.flush()
        session.refresh(task)
    return task


def delete(session: Session, *, principal: Principal, task_id: str) -> None:
    """Delete a task's row; remove its files after the commit. Raises 409 while it has not ended."""
    task = get(session, principal=principal, task_id=task_id, for_update=True)
    if task.state in OPEN:
        raise PanelError(409, "work_open", _("The task has not finished. Cancel it first."))
    session.delete(task)


def remove_files(task_id: str) -> None:
    """Delete the files of a deleted or failed task."""
    shutil.rmtree(storage.checkpoint_task(task_id), ignore_errors=True)


# ---- as the worker reports it ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskAssignment:
    """What a worker has to do. `start` is the number of this start: an earlier one may write nothing more."""

    task_id: str
    start: int
    kind: str
    options: CheckpointTaskOptions
    directory: str  # of the weights
    is_checkpoint: bool  # written here, with a manifest
    corpora: list[Corpus]
    base: str | None  # directory of the base model, for adapter exports


def begin(session: Session, *, task_id: str) -> TaskAssignment | None:
    """Start a queued task; None if it was started or cancelled (the message came twice, or late)."""
    waiting = (
        select(CheckpointTask)
        .where(CheckpointTask.id == task_id, CheckpointTask.state == "queued")
        .with_for_update(skip_locked=True)
    )
    task = session.scalar(waiting)
    return None if task is None else _begun(session, task)


def begin_next(session: Session) -> TaskAssignment | None:
    """Start the task that has waited longest; None if none waits."""
    waiting = (
        select(CheckpointTask)
        .where(CheckpointTask.state == "queued")
        .order_by(CheckpointTask.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    task = session.scalar(waiting)
    return None if task is None else _begun(session, task)


def _begun(session: Session, task: CheckpointTask) -> TaskAssignment:
    task.state, task.started_at, task.signed_at = "running", func.now(), func.now()
    task.num_starts += 1
    task.progress = StepsDone()
    ids = task.options.corpora
    rows = {corpus.id: corpus for corpus in session.scalars(select(Corpus).where(Corpus.id.in_(ids)))}
    corpora = [rows[corpus_id] for corpus_id in ids if corpus_id in rows]
    checkpoint = session.get(Checkpoint, task.checkpoint_id) if task.checkpoint_id is not None else None
    base = None
    if checkpoint is not None and task.options.format == "adapter":
        base = _base(session, checkpoint)
    directory = (
        storage.checkpoint(checkpoint.path) if checkpoint is not None else storage.base_model(task.model_id or "")
    )
    return TaskAssignment(
        task.id, task.num_starts, task.kind, task.options, str(directory), checkpoint is not None, corpora, base
    )


def _base(session: Session, checkpoint: Checkpoint) -> str | None:
    """The directory of the base model of a checkpoint's job, if it still exists."""
    base_id = session.get_one(Job, checkpoint.job_id).spec.base_model
    checkpoint_base = session.get(Checkpoint, base_id) if base_id else None
    if checkpoint_base is not None:
        return str(storage.checkpoint(checkpoint_base.path)) if checkpoint_base.state == "ready" else None
    return str(storage.base_model(base_id)) if base_id and session.get(ImportedModel, base_id) else None


def heartbeat(session: Session, *, task_id: str, start: int, progress: dict[str, Any] | None) -> bool:
    """Record progress. Returns False if the task was cancelled or restarted: its process must exit."""
    return _change(session, task_id, start, **({"progress": progress} if progress else {}))


def finish(session: Session, *, task_id: str, start: int, result: dict[str, Any]) -> bool:
    """Record success. Returns False if the task was cancelled or restarted."""
    return _change(session, task_id, start, state="succeeded", result=result, finished_at=func.now())


def fail(session: Session, *, task_id: str, start: int, code: str, values: dict[str, Any]) -> bool:
    """Record the reason of a failure. Returns False if the task was cancelled or restarted."""
    failure = FailureReason(code=code, values=values)
    return _change(session, task_id, start, state="failed", failure=failure, finished_at=func.now())


def _change(session: Session, task_id: str, start: int, **values: Any) -> bool:
    is_current = (CheckpointTask.id == task_id, CheckpointTask.num_starts == start, CheckpointTask.state == "running")
    changed = (
        update(CheckpointTask).where(*is_current).values(signed_at=func.now(), **values).returning(CheckpointTask.id)
    )
    return session.scalar(changed) is not None


def requeue_stale(session: Session) -> int:
    """Resend messages of waiting tasks and of tasks whose worker was lost (at most three starts). Returns how many."""
    silent = select(CheckpointTask).where(
        CheckpointTask.state == "running", CheckpointTask.signed_at < func.now() - LOST_AFTER
    )
    for task in session.scalars(silent.with_for_update(skip_locked=True)):
        if task.num_starts >= MAX_STARTS:
            task.state, task.failure, task.finished_at = "failed", FailureReason(code="worker_lost"), func.now()
        else:
            task.state, task.signed_at = "queued", func.now() - 2 * REANNOUNCE_AFTER
    session.flush()
    waiting = select(CheckpointTask).where(
        CheckpointTask.state == "queued", CheckpointTask.signed_at < func.now() - REANNOUNCE_AFTER
    )
    rows = session.scalars(waiting.with_for_update(skip_locked=True)).all()
    for task in rows:
        task.signed_at = func.now()
        _enqueue(session, task.id)
    return len(rows)


def _enqueue(session: Session, task_id: str) -> None:
    queue.enqueue_after_commit(session, queue.RUN_CHECKPOINT_TASK, task_id, queue=queue.CHECKPOINT_TASK_QUEUE)
