"""The verbs of an attempt at a job: claim the job, renew its lease, record its journal, report its outcome.

Each takes the attempt's fencing number and raises LeaseLost when another attempt has superseded this one: nothing is
written then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.checkpoints.conditions import usable_of
from app.core import job_failures
from app.core.json_shapes import JobProgress, Notice
from app.core.models import HELD, Attempt, Checkpoint, Corpus, Job, Tokenizer
from app.core.settings import settings
from app.corpora import service as corpora_service
from app.jobs.attempts import journal, metrics, replay
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.lifecycle import recovery_policy, retention, state, wait_reasons
from app.jobs.lifecycle.state import add_history, seconds_from_now, set_state
from app.jobs.lifecycle.transitions import Actor
from app.jobs.planning import base_model, validation
from app.jobs.planning.base_model import ModelFiles
from app.tokenizers import service as tokenizers_service
from trainer import events
from trainer.planning.memory import HOST_BYTES_PER_GPU_PROCESS
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec

MAX_SAVE_FAILURES = 3  # in a row; then the job pauses


class LeaseLost(Exception):
    """The job belongs to another attempt, or has ended."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that an attempt may resume from."""

    id: str
    step: int
    path: str


@dataclass(frozen=True)
class Assignment:
    """What an attempt has to do. `saved` are the checkpoints it may resume from, the best first."""

    job_id: str
    owner_id: str
    spec: TrainSpec
    gpus: list[str]
    corpora: list[CorpusInput]
    validation: list[CorpusInput]  # held out completely
    corpora_name: str
    state: str
    skipped_steps: list[int]
    saved: list[Saved]
    memory_bytes: int  # of the node that the attempt is planned to use
    base: ModelFiles | None = None  # of the base model; None if there is none or it was deleted
    tokenizer_id: str | None = None  # of the tokenizer that an earlier attempt trained


def claim(session: Session, *, job_id: str, node: str) -> int | None:
    """Take a job that was placed on this node; answers the fencing number of the new attempt."""
    is_claimable = (Job.id == job_id, Job.state == "queued", Job.desired == "run", Job.node == node)
    job = session.scalar(select(Job).where(*is_claimable).with_for_update())
    if job is None:
        return None
    job.fence += 1
    job.lease_until = seconds_from_now(settings().lease_seconds)
    job.started_at = job.started_at or func.now()
    job.wait_reason = None
    job.progress = JobProgress(latest=job.progress.latest)
    session.add(Attempt(job_id=job_id, fence=job.fence, node=node))
    set_state(session, job, "starting", "worker", "claimed", node=node)
    return job.fence


def assignment(session: Session, *, job_id: str, fence: int) -> Assignment:
    """The work of an attempt."""
    job = _leased(session, job_id, fence)
    spec = effective_spec(job)
    ids = [*spec.corpora, *spec.validation_corpora]
    rows = {corpus.id: corpus for corpus in session.scalars(select(Corpus).where(Corpus.id.in_(ids)))}
    return Assignment(
        job_id=job_id,
        owner_id=job.owner_id,
        spec=spec,
        gpus=job.gpus,
        corpora=[corpora_service.corpus_input(rows[corpus_id]) for corpus_id in spec.corpora],
        validation=[corpora_service.corpus_input(rows[corpus_id]) for corpus_id in spec.validation_corpora],
        corpora_name=", ".join(rows[corpus_id].name for corpus_id in spec.corpora),
        state=job.state,
        skipped_steps=job.adjustments.skipped_steps,
        saved=_saved(session, job),
        memory_bytes=_memory_bytes(job, spec),
        base=base_model.place(session, spec.base_model) if spec.base_model is not None else None,
        tokenizer_id=job.tokenizer_id,
    )


def _memory_bytes(job: Job, spec: TrainSpec) -> int:
    """The memory of the node that a job is planned to use, not that of its GPUs."""
    planned = job.facts.planned
    if planned is None or (job.gpus and planned.host_bytes is None):  # no machine was known, or by an earlier version
        return spec.num_processes * HOST_BYTES_PER_GPU_PROCESS
    return planned.host_bytes or spec.num_processes * int(planned.memory_bytes.value)


def _saved(session: Session, job: Job) -> list[Saved]:
    """The job's own checkpoints, newest first, then the one that the job continues from."""
    own = select(Checkpoint).where(usable_of([job.id]))
    rows = list(session.scalars(own.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc())))
    origin = session.get(Checkpoint, job.resume_from_id) if job.resume_from_id else None
    if origin is not None and origin.state == "ready":
        rows.append(origin)
    return [Saved(row.id, row.step, row.path) for row in rows if validation.is_resumable(row)]


def _leased(session: Session, job_id: str, fence: int) -> Job:
    """The job, locked. Raises LeaseLost unless this attempt still has its lease."""
    is_current = (Job.id == job_id, Job.fence == fence, Job.state.in_(HELD))
    job = session.scalar(select(Job).where(*is_current).with_for_update())
    if job is None:
        raise LeaseLost(f"attempt {fence} of job {job_id} was superseded")
    return job


def resume_at(
    session: Session, *, job_id: str, fence: int, step: int, saved: Saved | None, damaged: Sequence[tuple[str, str]]
) -> None:
    """Resume after a step: later points are archived. `damaged`: skipped checkpoint ids, each with what differs."""
    job = _leased(session, job_id, fence)
    attempt = session.get_one(Attempt, (job_id, fence))
    for checkpoint_id, why in damaged:
        row = session.get_one(Checkpoint, checkpoint_id)
        row.state = "corrupt"
        add_history(session, job, job.state, "supervisor", "checkpoint_corrupt", step=row.step, why=why)
    attempt.resume_step, attempt.resumed_from = step, saved.id if saved is not None else None
    earlier = session.scalars(select(Attempt).where(Attempt.job_id == job_id, Attempt.fence < fence)).all()
    attempt.replay = replay.begin(earlier, reached=job.step, resume_step=step)
    metrics.rewind(session, job_id=job_id, from_step=step + 1 if step else 0)
    if fence > 1 and (saved is not None or job.step):
        add_history(session, job, job.state, "supervisor", "resumed", step=step, repeated=max(0, job.step - step))
    job.step = attempt.reached_step = step


def renew(session: Session, *, job_id: str, fence: int) -> str:
    """Renew the lease of a job; returns its desired state. Raises LeaseLost."""
    job = _leased(session, job_id, fence)
    job.lease_until = seconds_from_now(settings().lease_seconds)
    return job.desired


def record(session: Session, *, job_id: str, fence: int, batch: Sequence[events.Event]) -> str:
    """Record a batch of the attempt's journal and renew the lease; returns the desired state. Skips recorded lines."""
    job = _leased(session, job_id, fence)
    attempt = session.get_one(Attempt, (job_id, fence))
    new = [event for event in batch if event.seq > attempt.journal_seq]
    if new:
        journal.fold(session, job, new)
        replay.compare(session, attempt, new)
        attempt.journal_seq = new[-1].seq
        attempt.reached_step = max(attempt.reached_step, job.step)
        if job.state == "starting" and any(isinstance(event, events.PointsEvent) and event.step > 0 for event in new):
            set_state(session, job, "running", "supervisor", "first_step")
        for event in new:
            if isinstance(event, events.SaveFailedEvent):
                _note_failed_save(session, job, event)
    job.lease_until = seconds_from_now(settings().lease_seconds)
    return job.desired


def _note_failed_save(session: Session, job: Job, event: events.SaveFailedEvent) -> None:
    values = event.model_dump(include={"step", "free", "needed", "why"})
    count = job.notice.count + 1 if job.notice is not None else 1
    is_enough = count >= MAX_SAVE_FAILURES
    job.notice = Notice(code="disk_full" if is_enough else "save_failed", values=values, count=count)
    add_history(session, job, job.state, "supervisor", "save_failed", **values)
    if is_enough and job.desired == "run":
        job.desired = "pause"


def record_tokenizer(
    session: Session, *, job_id: str, fence: int, event: events.TokenizerEvent, work: Assignment
) -> str:
    """Keep the tokenizer an attempt trained; answers its id. Put its files in place before the commit."""
    job = _leased(session, job_id, fence)
    tokenizer: Tokenizer = tokenizers_service.record_tokenizer(
        session,
        owner_id=job.owner_id,
        name=work.corpora_name[: tokenizers_service.MAX_NAME_LENGTH],
        vocab_size=event.vocab_size,
        sha256=event.sha256,
        corpora=work.spec.corpora,
    )
    job.tokenizer_id = tokenizer.id
    return tokenizer.id


def record_checkpoint(
    session: Session,
    *,
    job_id: str,
    fence: int,
    step: int,
    path: str,
    manifest: dict[str, Any],
    metrics: dict[str, float],
) -> Checkpoint:
    """Record a verified, published checkpoint. A newer one counts as progress: it resets the count of failures."""
    job = _leased(session, job_id, fence)
    newest = _newest_step(session, job_id)
    if newest is None or step > newest:
        job.no_progress = 0
    if job.notice is not None and job.notice.code == "save_failed":
        job.notice = None
    row = checkpoints.record(
        session,
        owner_id=job.owner_id,
        job_id=job_id,
        step=step,
        fence=fence,
        path=path,
        manifest=manifest,
        metrics=metrics,
    )
    retention.choose(session, job)
    return row


def _newest_step(session: Session, job_id: str) -> int | None:
    """The step of the newest intact checkpoint."""
    is_ready = (Checkpoint.job_id == job_id, Checkpoint.state == "ready")
    return session.scalar(select(func.max(Checkpoint.step)).where(*is_ready))


# ---- the end --------------------------------------------------------------------------------------------------------


def begin_stop(session: Session, *, job_id: str, fence: int, state: str) -> None:
    """Record that the attempt is being stopped at a user's request: `state` is pausing or cancelling."""
    job = _leased(session, job_id, fence)
    if job.state not in (state, "cancelling"):
        if state == "pausing" and job.notice is not None and job.notice.code in ("disk_full", "no_space"):
            set_state(session, job, state, "supervisor", job.notice.code, **job.notice.values)
        else:
            set_state(session, job, state, "supervisor", "wish_cancel" if state == "cancelling" else "wish_pause")


def finish(session: Session, *, job_id: str, fence: int) -> None:
    """Training is over and the last checkpoint is recorded. A job that finished before it could stop succeeded."""
    job = _ended(session, job_id, fence, "finished", {})
    if not _stopped(session, job):
        job.notice = None
        last, patience = _newest_step(session, job_id), job.spec.early_stopping_patience
        if job.desired == "cancel":
            state.finish(session, job, "succeeded", "supervisor", "finished_first")
        elif patience is not None and last is not None and job.max_steps is not None and last < job.max_steps:
            state.finish(session, job, "succeeded", "supervisor", "finished_early", step=last, patience=patience)
        else:
            state.finish(session, job, "succeeded", "supervisor", "finished")


def fail(session: Session, *, job_id: str, fence: int, code: str, values: dict[str, Any]) -> None:
    """The attempt cannot continue. The job is retried if a recovery is known, otherwise it fails."""
    job = _ended(session, job_id, fence, code, values)
    if _stopped(session, job):
        return
    remedy = recovery_policy.choose_recovery(job, code, values)
    if remedy is not None:
        job.adjustments = remedy.adjustments
        release_for_retry(session, job, "supervisor", remedy.reason, **remedy.values)
        return
    last = _newest_step(session, job_id)
    job.failure_code, job.failure = code, {**values, **({} if last is None else {"last_checkpoint": last})}
    state.finish(session, job, "failed", "supervisor", code, **values)


def release(session: Session, *, job_id: str, fence: int, reason: str, **data: Any) -> None:
    """The attempt has ended and its processes have exited, but the job is not done."""
    job = _ended(session, job_id, fence, reason, data)
    if reason in ("disk_full", "no_space"):  # its user resumes it after freeing space
        job.desired = "pause" if job.desired == "run" else job.desired
        job.notice = Notice(code=reason, values=data, count=1)
    if not _stopped(session, job):
        release_for_retry(session, job, "supervisor", reason, **data)


def _stopped(session: Session, job: Job) -> bool:
    """Move a job that was asked to stop to its final state, now that its processes have exited."""
    if job.state == "cancelling":
        state.finish(session, job, "cancelled", "supervisor", "stopped")
        return True
    if job.state != "pausing":
        return False
    if job.desired == "pause":
        _let_go(job)
        set_state(session, job, "paused", "supervisor", "stopped")
    else:  # its user has resumed it in the meantime
        release_for_retry(session, job, "supervisor", "wish_changed")
    return True


def _ended(session: Session, job_id: str, fence: int, kind: str, data: dict[str, Any]) -> Job:
    job = _leased(session, job_id, fence)
    attempt = session.get_one(Attempt, (job_id, fence))
    attempt.ended_at, attempt.exit_kind, attempt.exit_data = func.now(), kind, data
    return job


def release_for_retry(session: Session, job: Job, actor: Actor, reason: str, /, **data: Any) -> None:
    """End a locked job's attempt without a result. Faults of machines cost nothing, others count until a checkpoint."""
    if reason not in job_failures.FREE:
        job.no_progress += 1
    seconds = 0.0
    if reason not in job_failures.AT_ONCE:
        seconds = min(300.0, settings().retry_seconds * 2 ** max(0, job.no_progress - 1))
    job.not_before = seconds_from_now(seconds * recovery_policy.jitter(job.id, job.fence))
    _let_go(job)
    job.wait_reason = wait_reasons.encoded("back_off")
    set_state(session, job, "recovering", actor, reason, **data)


def _let_go(job: Job) -> None:
    job.lease_until = job.node = None
    job.gpus = []
