"""The verbs of works, which are exports and evaluations of checkpoints: the only writer of their table."""

import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.core import paging, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import FailureReason, StepsDone, WorkOptions
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Work
from app.core.principal import Principal, visible, visible_to
from app.corpora import service as corpora_service
from app.works.schemas import EVALUATED_KINDS, EvaluationRequest, ExportRequest
from trainer.spec import DECODERS, TrainSpec

OPEN = ("queued", "running")
MAX_STARTS = 3
SILENT = timedelta(seconds=60)  # a running work that gave no sign for so long is lost
WAITING = timedelta(seconds=10)  # a queued one is announced again
MAX_OPEN = 20  # of one user
GGUF = ("llama", "qwen2", "gpt2")


# ---- for people -----------------------------------------------------------------------------------------------------


def export(session: Session, *, principal: Principal, asked: ExportRequest) -> Work:
    """Queue an export of a checkpoint. Raises at the field that does not fit it."""
    checkpoint, spec = _checkpoint(session, principal, asked.checkpoint)
    if asked.format == "gguf" and (spec.model_type not in GGUF or spec.objective == "classification"):
        message = _(
            "GGUF is for decoders that write ({families}); this is a {model_type} for {objective}.",
            families=", ".join(GGUF),
            model_type=spec.model_type,
            objective=spec.objective,
        )
        raise bad_field("format", "format_unfit", message)
    if asked.format == "adapter" and spec.tuning == "full":
        raise bad_field("format", "format_unfit", _("This checkpoint has no adapter: its job trained all weights."))
    return _queue(session, principal, checkpoint, "export", WorkOptions(**asked.model_dump(exclude={"checkpoint"})))


def evaluate(session: Session, *, principal: Principal, asked: EvaluationRequest) -> Work:
    """Queue an evaluation of a checkpoint on corpora. Raises at the field that does not fit."""
    checkpoint, spec = _checkpoint(session, principal, asked.checkpoint)
    if spec.model_type not in DECODERS or spec.objective == "classification":
        message = _("Only decoders that write can be asked questions; the measures of this one are its job's own.")
        raise bad_field("checkpoint", "checkpoint_unfit", message)
    for corpus in corpora_service.require_ready_corpora(session, principal=principal, ids=asked.corpora):
        if corpus.kind not in EVALUATED_KINDS:
            values = {"name": corpus.name, "kind": corpus.kind, "kinds": ", ".join(EVALUATED_KINDS)}
            message = _("The corpus “{name}” is of the kind {kind}; choose one of {kinds}.", **values)
            raise bad_field("corpora", "kind_unfit", message)
    return _queue(session, principal, checkpoint, "evaluation", WorkOptions(**asked.model_dump(exclude={"checkpoint"})))


def _checkpoint(session: Session, principal: Principal, checkpoint_id: str) -> tuple[Checkpoint, TrainSpec]:
    """A checkpoint whose files are there, and the spec of its job."""
    try:
        found = checkpoints.get(session, principal=principal, checkpoint_id=checkpoint_id, for_update=True)
    except PanelError as error:
        raise bad_field("checkpoint", "checkpoint_unknown", error.message) from error
    if found.state != "ready":
        raise bad_field("checkpoint", "checkpoint_corrupt", _("The files of this checkpoint are damaged."))
    return found, session.get_one(Job, found.job_id).spec


def _queue(session: Session, principal: Principal, checkpoint: Checkpoint, kind: str, options: WorkOptions) -> Work:
    mine = select(func.count()).where(Work.owner_id == principal.user_id, Work.state.in_(OPEN))
    if (session.scalar(mine) or 0) >= MAX_OPEN:
        message = _(
            "{count} exports and evaluations of yours are not done yet. Wait for one, or cancel it.", count=MAX_OPEN
        )
        raise PanelError(429, "works_open", message)
    work = Work(owner_id=principal.user_id, checkpoint_id=checkpoint.id, kind=kind, options=options)
    session.add(work)
    session.flush()
    _owe(session, work.id)
    return work


def get(session: Session, *, principal: Principal, work_id: str, for_update: bool = False) -> Work:
    """A work the user may see. Raises 404."""
    return visible(session, Work, work_id, principal=principal, for_update=for_update)


def list_works(
    session: Session,
    *,
    principal: Principal,
    checkpoint_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> tuple[list[Work], str | None]:
    """The user's works, of one checkpoint or of all, newest first, and the cursor of the next page."""
    query = select(Work).where(visible_to(Work.owner_id, principal))
    if checkpoint_id is not None:
        query = query.where(Work.checkpoint_id == checkpoint_id)
    return paging.newest(session, query, Work.id, limit, after)


def cancel(session: Session, *, principal: Principal, work_id: str) -> Work:
    """Do it no more. Its process ends within a second or two. Cancelling what is over changes nothing."""
    work = get(session, principal=principal, work_id=work_id, for_update=True)
    if work.state in OPEN:
        work.state, work.finished_at = "cancelled", func.now()
        session.flush()
        session.refresh(work)
    return work


def delete(session: Session, *, principal: Principal, work_id: str) -> None:
    """Forget a work. Remove its files after the commit. Raises 409 while it is not over."""
    work = get(session, principal=principal, work_id=work_id, for_update=True)
    if work.state in OPEN:
        raise PanelError(409, "work_open", _("It is not over yet. Cancel it first."))
    session.delete(work)


def remove_files(work_id: str) -> None:
    """Delete what a forgotten or failed work left on the disk."""
    shutil.rmtree(storage.work(work_id), ignore_errors=True)


def known(session: Session) -> set[str]:
    """The ids of all works: a directory of another name is nobody's."""
    return set(session.scalars(select(Work.id)))


# ---- as the worker reports it ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """What a worker has to do. `start` is the number of this start: an earlier one may write nothing more."""

    work_id: str
    start: int
    kind: str
    options: WorkOptions
    checkpoint_path: str
    corpora: list[Corpus]
    base: str | None  # the directory of the model that an adapter stands beside


def begin(session: Session, *, work_id: str) -> Assignment | None:
    """Take a queued work: a message that came twice, or late, finds nothing to do."""
    waiting = select(Work).where(Work.id == work_id, Work.state == "queued").with_for_update(skip_locked=True)
    work = session.scalar(waiting)
    return None if work is None else _begun(session, work)


def begin_next(session: Session) -> Assignment | None:
    """Take the work that has waited longest, if any waits."""
    waiting = select(Work).where(Work.state == "queued").order_by(Work.id).limit(1).with_for_update(skip_locked=True)
    work = session.scalar(waiting)
    return None if work is None else _begun(session, work)


def _begun(session: Session, work: Work) -> Assignment:
    work.state, work.started_at, work.signed_at = "running", func.now(), func.now()
    work.num_starts += 1
    work.progress = StepsDone()
    checkpoint = session.get_one(Checkpoint, work.checkpoint_id)
    ids = work.options.corpora
    rows = {corpus.id: corpus for corpus in session.scalars(select(Corpus).where(Corpus.id.in_(ids)))}
    corpora = [rows[corpus_id] for corpus_id in ids if corpus_id in rows]
    base = _base(session, checkpoint) if work.options.format == "adapter" else None
    return Assignment(work.id, work.num_starts, work.kind, work.options, checkpoint.path, corpora, base)


def _base(session: Session, checkpoint: Checkpoint) -> str | None:
    """Where the model lies that a checkpoint's job started from, if it is still there."""
    base_id = session.get_one(Job, checkpoint.job_id).spec.base_model
    ours = session.get(Checkpoint, base_id) if base_id else None
    if ours is not None:
        return str(storage.checkpoint(ours.path)) if ours.state == "ready" else None
    return str(storage.base_model(base_id)) if base_id and session.get(ImportedModel, base_id) else None


def sign(session: Session, *, work_id: str, start: int, progress: dict[str, Any] | None) -> bool:
    """It goes on, this far. Answers False where it is no more this start's to do: its process must end."""
    return _change(session, work_id, start, **({"progress": progress} if progress else {}))


def finish(session: Session, *, work_id: str, start: int, result: dict[str, Any]) -> bool:
    """It is done."""
    return _change(session, work_id, start, state="succeeded", result=result, finished_at=func.now())


def fail(session: Session, *, work_id: str, start: int, code: str, values: dict[str, Any]) -> bool:
    """It cannot be done: keep why."""
    failure = FailureReason(code=code, values=values)
    return _change(session, work_id, start, state="failed", failure=failure, finished_at=func.now())


def _change(session: Session, work_id: str, start: int, **values: Any) -> bool:
    mine = (Work.id == work_id, Work.num_starts == start, Work.state == "running")
    changed = update(Work).where(*mine).values(signed_at=func.now(), **values).returning(Work.id)
    return session.scalar(changed) is not None


def owe_lost(session: Session) -> int:
    """Announce again what still waits, and what a worker let fall, three times at most. Returns how many."""
    silent = select(Work).where(Work.state == "running", Work.signed_at < func.now() - SILENT)
    for work in session.scalars(silent.with_for_update(skip_locked=True)):
        if work.num_starts >= MAX_STARTS:
            work.state, work.failure, work.finished_at = "failed", FailureReason(code="worker_lost"), func.now()
        else:
            work.state, work.signed_at = "queued", func.now() - 2 * WAITING
    session.flush()
    waiting = select(Work).where(Work.state == "queued", Work.signed_at < func.now() - WAITING)
    rows = session.scalars(waiting.with_for_update(skip_locked=True)).all()
    for work in rows:
        work.signed_at = func.now()
        _owe(session, work.id)
    return len(rows)


def _owe(session: Session, work_id: str) -> None:
    queue.enqueue_after_commit(session, queue.RUN_WORK, work_id, queue=queue.WORK_QUEUE)
