"""The queue of background tasks in the database: the only writer of their table.

A background task parses or cleans a corpus or counts its statistics, imports a base model, trains or imports a
tokenizer, exports or evaluates a model, has a model write records, imports a job, or tokenizes corpora. Like a job it
is run by one process at a time: that holds a lease, and each start raises the fence, with which every later write is
refused to an earlier start. What a task's end means for its corpus, model or tokenizer is in
app/background_tasks/outcomes.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.core import db, disk, queue, quotas
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.json_shapes import FailureReason, TaskOptions, TaskProgress, TaskResult
from app.core.model_base import new_id
from app.core.models import BackgroundTask
from app.core.settings import settings

Kind = Literal[
    "parse", "clean", "statistics", "import", "export", "evaluation", "tokenizer", "generate", "job_import", "tokenize"
]
OPEN = ("queued", "running")
MAX_LOSSES = 3  # of workers that run the same task, before it fails
MAX_RUNNING_PER_USER = 2  # on all nodes
PATIENCE_SECONDS = 600.0  # after which a task that needs much memory has its node start nothing else before it


@dataclass(frozen=True)
class Lane:
    """Kinds of tasks that wait for each other on a node, and for no other kind."""

    kinds: tuple[Kind, ...]
    slots: int  # tasks at once on a node
    max_open_per_user: int


LANES = (
    Lane(("parse",), slots=MAX_RUNNING_PER_USER + 1, max_open_per_user=500),  # so that no user takes all
    Lane(("statistics",), slots=1, max_open_per_user=50),
    Lane(("clean",), slots=1, max_open_per_user=20),
    Lane(("import",), slots=1, max_open_per_user=20),
    Lane(("export", "evaluation"), slots=1, max_open_per_user=20),
    Lane(("tokenizer",), slots=1, max_open_per_user=20),
    Lane(("generate",), slots=1, max_open_per_user=20),
    Lane(("job_import",), slots=1, max_open_per_user=20),
    Lane(("tokenize",), slots=1, max_open_per_user=20),
)


def lane_of(kind: str) -> Lane:
    """The lane of a kind of tasks."""
    return next(lane for lane in LANES if kind in lane.kinds)


# ---- queueing -------------------------------------------------------------------------------------------------------


def enqueue(
    session: Session,
    *,
    kind: Kind,
    owner_id: str | None,
    memory_bytes: int,
    disk_bytes: int = 0,
    options: TaskOptions | None = None,
    corpus_id: str | None = None,
    checkpoint_id: str | None = None,
    model_id: str | None = None,
    tokenizer_id: str | None = None,
    task_id: str | None = None,
) -> BackgroundTask:
    """Queue a task on a corpus, a checkpoint, a base model, a tokenizer, or what was uploaded for `task_id`.

    `memory_bytes` is the most that its process may use, `disk_bytes` what it will write, as far as that is known.
    Raises PanelError: 429 if its owner has too many unfinished tasks, 507 if the disk is too full. Call
    `queue.flush_outbox` after the commit.
    """
    lane = lane_of(kind)
    if owner_id is not None:
        _check_number_open(session, owner_id, lane)
        disk.require_room(max(1, disk_bytes))
        if disk_bytes:
            quotas.check_disk(session, owner_id, disk_bytes)
    task = BackgroundTask(
        id=task_id or new_id(),
        owner_id=owner_id,
        kind=kind,
        options=options or TaskOptions(),
        memory_bytes=memory_bytes,
        corpus_id=corpus_id,
        checkpoint_id=checkpoint_id,
        model_id=model_id,
        tokenizer_id=tokenizer_id,
    )
    session.add(task)
    session.flush()
    queue.enqueue_after_commit(session, queue.RUN_BACKGROUND_TASKS, queue=queue.BACKGROUND_QUEUE)
    return task


def _check_number_open(session: Session, owner_id: str, lane: Lane) -> None:
    is_open = (
        BackgroundTask.owner_id == owner_id,
        BackgroundTask.kind.in_(lane.kinds),
        BackgroundTask.state.in_(OPEN),
    )
    if (session.scalar(select(func.count()).where(*is_open)) or 0) >= lane.max_open_per_user:
        message = _(
            "You have {count} unfinished tasks of this kind. Wait for one to finish, or cancel one.",
            count=lane.max_open_per_user,
        )
        raise PanelError(429, "tasks_open", message, headers={"Retry-After": "30"})


def open_tasks(
    session: Session, subject: InstrumentedAttribute[str | None], ids: Iterable[str], kinds: Sequence[Kind] = ()
) -> dict[str, BackgroundTask]:
    """The unfinished tasks of corpora, checkpoints or models by the ID of these, which is in the column `subject`.

    Only those of some kinds, if asked for.
    """
    ids = list(ids)
    if not ids:
        return {}
    query = select(BackgroundTask).where(subject.in_(ids), BackgroundTask.state.in_(OPEN))
    tasks = session.scalars(query.where(BackgroundTask.kind.in_(kinds)) if kinds else query)
    return {getattr(task, subject.key): task for task in tasks}


# ---- running --------------------------------------------------------------------------------------------------------


def claim(session: Session, *, node: str, running: Mapping[Lane, int], free_bytes: int | None) -> BackgroundTask | None:
    """Start a waiting task on a node, or None if none may start. Its fence is the one to write with.

    `running` is the number of the node's tasks by lane. Of a lane the next task is one whose owner has the fewest
    running tasks, then the oldest. It waits while it needs more memory than `free_bytes` (None: the node is idle, so
    that any task may start); another lane does not wait for it, unless it has waited for PATIENCE_SECONDS.
    """
    free_lanes = [lane for lane in LANES if running.get(lane, 0) < lane.slots]
    heads = [task for lane in free_lanes if (task := session.scalar(_waiting(lane))) is not None]
    fitting = [task for task in heads if free_bytes is None or task.memory_bytes <= free_bytes]
    if not fitting or any(_has_starved(task) for task in heads if task not in fitting):
        return None
    _start(session, fitting[0], node)
    return fitting[0]


def _has_starved(task: BackgroundTask) -> bool:
    return (db.now() - task.created_at).total_seconds() > PATIENCE_SECONDS


def _waiting(lane: Lane) -> Select[BackgroundTask]:
    other = aliased(BackgroundTask)
    is_of_same_owner = other.owner_id.is_not_distinct_from(BackgroundTask.owner_id)
    running = select(func.count()).where(other.state == "running", is_of_same_owner)
    num_running = running.correlate(BackgroundTask).scalar_subquery()
    is_due = or_(BackgroundTask.not_before.is_(None), BackgroundTask.not_before <= func.now())
    waiting = select(BackgroundTask).where(
        BackgroundTask.state == "queued",
        BackgroundTask.kind.in_(lane.kinds),
        is_due,
        or_(BackgroundTask.owner_id.is_(None), num_running < MAX_RUNNING_PER_USER),
    )
    by_turn = waiting.order_by(num_running, BackgroundTask.id).limit(1)
    return by_turn.with_for_update(skip_locked=True, of=BackgroundTask)


def _start(session: Session, task: BackgroundTask, node: str) -> None:
    task.state, task.node, task.fence = "running", node, task.fence + 1
    task.progress = TaskProgress()
    task.started_at, task.lease_until = func.now(), _lease_end()
    session.flush()
    session.refresh(task)


def _lease_end() -> Any:
    return func.now() + timedelta(seconds=settings().lease_seconds)


def renew(session: Session, *, task_id: str, fence: int, progress: TaskProgress | None) -> bool:
    """Renew the lease of a start and record its progress.

    Returns False if the task was cancelled, deleted or started again: the process of this start must end.
    """
    values: dict[str, Any] = {"lease_until": _lease_end()}
    if progress is not None:
        values["progress"] = progress
    return _change(session, task_id, fence, **values) is not None


def finish(session: Session, *, task_id: str, fence: int, result: TaskResult | None = None) -> BackgroundTask | None:
    """Record success. Returns the task, or None if it was cancelled, deleted or started again."""
    return _change(session, task_id, fence, state="succeeded", result=result, finished_at=func.now())


def fail(session: Session, *, task_id: str, fence: int, failure: FailureReason) -> BackgroundTask | None:
    """Record the reason of a failure. Returns the task, or None if it was cancelled, deleted or started again."""
    return _change(session, task_id, fence, state="failed", failure=failure, finished_at=func.now())


def retry(session: Session, *, task_id: str, fence: int) -> bool:
    """Queue a task again, after a pause, whose failure may pass; False if it was lost or retried too often already."""
    task = session.scalar(select(BackgroundTask).where(*_is_current(task_id, fence)).with_for_update())
    return task is not None and _requeue(task)


def _change(session: Session, task_id: str, fence: int, **values: Any) -> BackgroundTask | None:
    changed = update(BackgroundTask).where(*_is_current(task_id, fence)).values(**values)
    return session.scalar(changed.returning(BackgroundTask))


def _is_current(task_id: str, fence: int) -> tuple[ColumnElement[bool], ...]:
    return (BackgroundTask.id == task_id, BackgroundTask.fence == fence, BackgroundTask.state == "running")


# ---- endings that its process does not report -----------------------------------------------------------------------


def cancel(task: BackgroundTask) -> bool:
    """Cancel a task, which is locked; its process ends with the next renewal. Returns False if it has already ended."""
    if task.state not in OPEN:
        return False
    task.state, task.finished_at = "cancelled", func.now()
    return True


def cancel_of(session: Session, subject: InstrumentedAttribute[str | None], *row_ids: str) -> list[str]:
    """Cancel what works on corpora, checkpoints, models or tokenizers, which are locked. Returns the tasks' kinds."""
    tasks = session.scalars(_work_on(subject, row_ids).with_for_update())
    return [task.kind for task in tasks if cancel(task)]


def are_used_by_others(
    session: Session, subject: InstrumentedAttribute[str | None], row_ids: Sequence[str], owner_id: str
) -> bool:
    """Whether tasks of others than their owner work on corpora, checkpoints, models or tokenizers."""
    of_others = _work_on(subject, row_ids).where(BackgroundTask.owner_id != owner_id)
    return session.scalar(of_others.limit(1)) is not None


def _work_on(subject: InstrumentedAttribute[str | None], row_ids: Sequence[str]) -> Select[BackgroundTask]:
    """The open tasks of rows, and the evaluations whose answers these judge."""
    judges = BackgroundTask.options["judge"].as_string().in_(row_ids)
    return select(BackgroundTask).where(or_(subject.in_(row_ids), judges), BackgroundTask.state.in_(OPEN))


def cancel_uses(session: Session, *, corpus_id: str) -> None:
    """Cancel what evaluates on a corpus or tokenizes it, which is being deleted."""
    for task in session.scalars(_uses(corpus_id).with_for_update()):
        cancel(task)


def refuse_while_tokenized(session: Session, *, corpus_id: str) -> None:
    """Raise PanelError (409) while a task tokenizes a corpus, which is about to get another text."""
    task = session.scalar(_uses(corpus_id).where(BackgroundTask.kind == "tokenize").limit(1))
    if task is not None:
        message = _("The task {id} uses this. Cancel it or wait for its end.", id=task.id)
        raise PanelError(409, "corpus_in_use", message)


def _uses(corpus_id: str) -> Select[BackgroundTask]:
    uses_corpus = BackgroundTask.options["corpora"].contains([corpus_id])
    return select(BackgroundTask).where(uses_corpus, BackgroundTask.state.in_(OPEN))


def corpora_of_open_tasks(session: Session) -> set[str]:
    """The IDs of the corpora that tasks which wait or run read."""
    open_tasks = select(BackgroundTask.corpus_id, BackgroundTask.options).where(BackgroundTask.state.in_(OPEN))
    rows = session.execute(open_tasks).all()
    return {corpus_id for row in rows for corpus_id in (row.corpus_id, *row.options.corpora) if corpus_id}


def list_lost(session: Session, *, node: str | None = None) -> list[BackgroundTask]:
    """The running tasks whose worker fell silent, or all of a node."""
    return list(session.scalars(_lost(node)))


def _lost(node: str | None) -> Select[BackgroundTask]:
    is_lost = BackgroundTask.lease_until < func.now() if node is None else BackgroundTask.node == node
    return select(BackgroundTask).where(BackgroundTask.state == "running", is_lost)


def expire_leases(session: Session) -> list[BackgroundTask]:
    """Queue the tasks again whose worker fell silent. Returns those that failed because that happened too often."""
    return _lose(session, _lost(None))


def lose_node(session: Session, *, node: str) -> list[BackgroundTask]:
    """The same for all running tasks of a node whose worker has just started: its predecessor ran them."""
    return _lose(session, _lost(node))


def _lose(session: Session, lost: Select[BackgroundTask]) -> list[BackgroundTask]:
    tasks = session.scalars(lost.with_for_update(skip_locked=True)).all()
    failed = [task for task in tasks if not _requeue(task)]
    for task in failed:
        task.state, task.failure, task.finished_at = "failed", FailureReason(code="worker_lost"), func.now()
    session.flush()
    return failed


def _requeue(task: BackgroundTask) -> bool:
    """Queue a running task again after a pause; False after MAX_LOSSES losses, which then leaves it as it is."""
    if task.num_losses + 1 >= MAX_LOSSES:
        return False
    pause = settings().retry_seconds * 2**task.num_losses
    task.state, task.num_losses = "queued", task.num_losses + 1
    task.lease_until, task.not_before = None, func.now() + timedelta(seconds=pause)
    return True


def release(session: Session, *, task_id: str, fence: int, seconds: float = 0) -> None:
    """Queue a task again that could not be done, which is no loss: its worker stops, or its files are still in use.

    It waits so many seconds at least.
    """
    not_before = func.now() + timedelta(seconds=seconds)
    _change(session, task_id, fence, state="queued", lease_until=None, not_before=not_before)


def report_outage(session: Session, *, task_id: str, fence: int) -> None:
    """Note that a start ended only because its node could not reach the database: that is no loss.

    The task is queued again. If its lease expired meanwhile, that does not count any more.
    """
    task = session.scalar(select(BackgroundTask).where(BackgroundTask.id == task_id).with_for_update())
    if task is None or task.state not in OPEN:
        return
    if task.state == "running" and task.fence == fence:
        task.state, task.lease_until = "queued", None
    else:
        task.num_losses = max(0, task.num_losses - 1)
    if task.state == "queued":
        task.not_before = None
