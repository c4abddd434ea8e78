"""What people do with background tasks: start an export or an evaluation, see, cancel and delete any of them."""

import shutil
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.background_tasks import outcomes
from app.background_tasks.schemas import EvaluationRequest, ExportRequest
from app.base_models import limits
from app.checkpoints.usable_models import Subject, memory_bytes, subject
from app.core import background_tasks, db, paging, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, ngettext
from app.core.json_shapes import TaskOptions
from app.core.models import BackgroundTask
from app.core.principal import Principal, visible, visible_to
from app.corpora import service as corpora_service
from app.corpora.record_kinds import kind_names
from trainer.formats.corpus_kinds import EVALUATION_KINDS
from trainer.limits import Limit

T = TypeVar("T")

# ---- exports and evaluations ----------------------------------------------------------------------------------------


def export(session: Session, *, principal: Principal, request: ExportRequest) -> BackgroundTask:
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


def evaluate(session: Session, *, principal: Principal, request: EvaluationRequest) -> BackgroundTask:
    """Queue an evaluation on corpora. Raises at the field that does not fit."""
    evaluated = subject(session, principal=principal, subject_id=request.checkpoint, for_update=True)
    limits.require(evaluated.traits, "evaluate", "checkpoint")
    check_corpora(
        session,
        principal=principal,
        ids=request.corpora,
        has_judge=request.judge is not None,
        num_fewshot=request.num_fewshot,
    )
    judge = None
    if request.judge is not None:
        judge = subject(session, principal=principal, subject_id=request.judge, field="judge")
        limits.require(judge.traits, "evaluate", "judge")
    return _queue(session, principal, evaluated, "evaluation", request, judge)


def check_corpora(
    session: Session,
    *,
    principal: Principal,
    ids: Sequence[str],
    has_judge: bool = False,
    num_fewshot: int = 0,
    field: str = "corpora",
) -> None:
    """Raises PanelError at `field` for a corpus that cannot be evaluated on, at `judge` for one that needs it, or at
    `num_fewshot` for one with too few records to show so many of them.
    """
    for corpus in corpora_service.require_ready_corpora(session, principal=principal, ids=ids, field=field):
        values = {"name": corpus.name}
        if corpus.kind not in EVALUATION_KINDS:
            kinds = {"kind": kind_names([corpus.kind]), "kinds": kind_names(EVALUATION_KINDS)}
            message = _("The corpus “{name}” is of the kind {kind}; choose one of {kinds}.", **values, **kinds)
            raise bad_field(field, "kind_unfit", message)
        if corpus.kind == "questions" and "judge" in corpus.progress.labels and not has_judge:
            message = _("The corpus “{name}” has questions whose answers a model judges. Choose that model.", **values)
            raise bad_field("judge", "judge_missing", message)
        if corpus.kind != "text" and corpus.num_documents is not None and corpus.num_documents <= num_fewshot:
            message = ngettext(
                "The corpus “{name}” has {n} record. Show fewer examples, so that some are left to ask about.",
                "The corpus “{name}” has {n} records. Show fewer examples, so that some are left to ask about.",
                corpus.num_documents,
                **values,
            )
            raise bad_field("num_fewshot", "examples_few", message)


def start(
    verb: Callable[..., BackgroundTask],
    principal: Principal,
    request: ExportRequest | EvaluationRequest,
    answer: Callable[[BackgroundTask], T],
) -> T:
    """Queue by `export` or `evaluate` in a transaction of its own, and tell the nodes. Returns what `answer` reads."""
    with db.transaction() as session:
        answered = answer(verb(session, principal=principal, request=request))
    queue.flush_outbox()
    return answered


def _queue(
    session: Session,
    principal: Principal,
    of: Subject,
    kind: Literal["export", "evaluation"],
    request: ExportRequest | EvaluationRequest,
    judge: Subject | None = None,
) -> BackgroundTask:
    weights = max(each.num_bytes for each in (of, judge) if each is not None)
    return background_tasks.enqueue(
        session,
        kind=kind,
        owner_id=principal.user_id,
        checkpoint_id=of.checkpoint.id if of.checkpoint is not None else None,
        model_id=of.model.id if of.model is not None else None,
        options=TaskOptions(**request.model_dump(exclude={"checkpoint"})),
        memory_bytes=memory_bytes(weights),
        disk_bytes=of.num_bytes if kind == "export" else 0,
    )


# ---- all tasks ------------------------------------------------------------------------------------------------------


def get(session: Session, *, principal: Principal, task_id: str, for_update: bool = False) -> BackgroundTask:
    """A task the user may see. Raises 404."""
    return visible(session, BackgroundTask, task_id, principal=principal, for_update=for_update)


def list_tasks(
    session: Session,
    *,
    principal: Principal,
    subject_id: str | None = None,
    kinds: Sequence[str] = (),
    limit: int = 50,
    after: str | None = None,
) -> tuple[list[BackgroundTask], str | None]:
    """The user's tasks, newest first, and the cursor of the next page.

    Only those of one corpus, checkpoint, imported model or tokenizer, or only those of some kinds, if asked for.
    """
    query = select(BackgroundTask).where(visible_to(BackgroundTask.owner_id, principal))
    if subject_id is not None:
        names = ("corpus_id", "checkpoint_id", "model_id", "tokenizer_id")
        query = query.where(or_(*(getattr(BackgroundTask, name) == subject_id for name in names)))
    if kinds:
        query = query.where(BackgroundTask.kind.in_(kinds))
    return paging.newest(session, query, BackgroundTask.id, limit, after)


def cancel(session: Session, *, principal: Principal, task_id: str) -> BackgroundTask:
    """Cancel the task; its process exits within two seconds. No-op if it has already finished."""
    task = _own(session, principal, task_id)
    if background_tasks.cancel(task):
        outcomes.on_cancel(session, task)
        session.flush()
        session.refresh(task)
    return task


def delete(session: Session, *, principal: Principal, task_id: str) -> None:
    """Delete a task's row; remove its files after the commit. Raises 409 while it has not ended."""
    task = _own(session, principal, task_id)
    if task.state in background_tasks.OPEN:
        raise PanelError(409, "task_open", _("The task has not finished. Cancel it first."))
    session.delete(task)


def _own(session: Session, principal: Principal, task_id: str) -> BackgroundTask:
    outcomes.lock_subject(session, get(session, principal=principal, task_id=task_id))
    task = get(session, principal=principal, task_id=task_id, for_update=True)
    if task.owner_id is None:
        raise PanelError(403, "task_shipped", _("This task prepares what ships with Athanor and cannot be changed."))
    return task


def remove_files(task_id: str) -> None:
    """Delete the files of a deleted or failed task."""
    shutil.rmtree(storage.background_task(task_id), ignore_errors=True)
