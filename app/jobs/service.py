"""The verbs of jobs: the only writer of their tables, and the only code that moves a job (see transitions.py).

Verbs of an attempt carry its fencing number and answer None or False where it is not the job's any more: nothing is
written then. Instants are the database's.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import auth, paging, queue
from app.auth import Principal
from app.checkpoints import service as checkpoints
from app.corpora import service as corpora_service
from app.errors import PanelError, bad_field
from app.i18n import _
from app.jobs import admission, journal, metrics, nodes, placement, waiting
from app.jobs.transitions import HELD, Actor, allowed
from app.models import Attempt, Checkpoint, Corpus, Job, JobEvent, Node, Tokenizer, new_id
from app.settings import settings
from trainer import events
from trainer.spec import TrainSpec, resolve

MAX_ATTEMPTS = 3  # in a row without a newer checkpoint
BACK_OFF_SECONDS = 10  # doubled with each of them
HINT_SECONDS = 10  # a placed job that nobody claimed is hinted at again
MAX_KEY_LENGTH = 200


# ---- for people -----------------------------------------------------------------------------------------------------


def check(
    session: Session, *, principal: Principal, given: dict[str, Any]
) -> tuple[TrainSpec, list[Corpus], Tokenizer | None]:
    """Resolve a partial spec and say what is wrong with it; answers it with its corpora and its tokenizer, if any."""
    admission.check_text(given)
    spec = resolve(given)
    corpora = corpora_service.usable(session, principal=principal, ids=spec.corpora)
    tokenizer = None
    if spec.tokenizer is not None:
        tokenizer = corpora_service.usable_tokenizer(session, principal=principal, tokenizer_id=spec.tokenizer)
    admission.check_size(spec, corpora)
    return spec, corpora, tokenizer


def submit(
    session: Session, *, principal: Principal, given: dict[str, Any], idempotency_key: str | None = None
) -> tuple[Job, bool]:
    """Queue a job; says whether it is new. The same key and body give the same job again, another body a 409."""
    admission.check_text(given)
    body_sha256 = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    repeated = _submitted_before(session, principal, idempotency_key, body_sha256)
    if repeated is not None:
        return repeated, False
    spec, _corpora, tokenizer = check(session, principal=principal, given=given)
    values = {
        "id": new_id(),
        "owner_id": principal.user_id,
        "name": spec.name,
        "recipe": spec.recipe,
        "spec": spec.model_dump(),
        "spec_sha256": spec.sha256(),
        "idempotency_key": idempotency_key,
        "body_sha256": body_sha256,
        "max_steps": spec.max_steps,
        "tokenizer_id": tokenizer.id if tokenizer is not None else None,
    }
    job = session.scalar(insert(Job).values(**values).on_conflict_do_nothing().returning(Job))
    if job is None:  # another request with the key was faster
        repeated = _submitted_before(session, principal, idempotency_key, body_sha256)
        assert repeated is not None
        return repeated, False
    _tell(session, job, None, "user", "submitted")
    return job, True


def _submitted_before(session: Session, principal: Principal, key: str | None, body_sha256: str) -> Job | None:
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        message = _("The Idempotency-Key must have 1 to {max} characters.", max=MAX_KEY_LENGTH)
        raise bad_field("Idempotency-Key", "key_invalid", message)
    job = session.scalar(select(Job).where(Job.owner_id == principal.user_id, Job.idempotency_key == key))
    if job is not None and job.body_sha256 != body_sha256:
        message = _("This Idempotency-Key was used for another job ({id}). Use a new key.", id=job.id)
        raise bad_field("Idempotency-Key", "key_reused", message, 409)
    return job


def get(session: Session, *, principal: Principal, job_id: str) -> Job:
    """A job the user may see. Raises 404."""
    return auth.visible(session, Job, job_id, principal=principal)


def list_jobs(
    session: Session,
    *,
    principal: Principal,
    limit: int = 50,
    after: str | None = None,
    states: Sequence[str] | None = None,
) -> tuple[list[Job], str | None]:
    """The jobs the user may see, of these states or of all, newest first, and the cursor of the next page."""
    query = select(Job).where(auth.visible_to(Job.owner_id, principal))
    if states is not None:
        query = query.where(Job.state.in_(states))
    return paging.newest(session, query, Job.id, limit, after)


def history(session: Session, *, job_id: str, after: int = 0, until: int | None = None) -> list[JobEvent]:
    """What happened to a job, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    if until is not None:
        query = query.where(JobEvent.seq <= until)
    return list(session.scalars(query.order_by(JobEvent.seq)))


def cancel(session: Session, *, principal: Principal, job_id: str) -> Job:
    """Wish a job cancelled. What does not run ends at once, what runs as soon as its supervisor hears of it."""
    job = auth.visible(session, Job, job_id, principal=principal, for_update=True)
    if job.state in ("succeeded", "failed"):
        raise PanelError(409, "job_ended", _("This job has ended; there is nothing left to cancel."))
    job.desired = "cancel"
    if job.state in ("queued", "paused", "recovering"):
        _close(session, job, "cancelled", "user", "wish_cancel")
    return job


def list_nodes(session: Session) -> list[Node]:
    """Every machine that ever ran a worker, by name."""
    return list(session.scalars(select(Node).order_by(Node.name)))


# ---- moving ---------------------------------------------------------------------------------------------------------


def _move(session: Session, job: Job, state: str, actor: Actor, reason: str | None = None, **data: Any) -> None:
    """Move a locked job, and write down that it moved."""
    assert allowed(job.state, state, actor), f"{actor} may not move a job from {job.state} to {state}"
    before, job.state = job.state, state
    _tell(session, job, before, actor, reason, **data)


def _tell(session: Session, job: Job, before: str | None, actor: Actor, reason: str | None, **data: Any) -> None:
    last = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job.id)) or 0
    session.add(
        JobEvent(
            job_id=job.id,
            seq=last + 1,
            actor=actor,
            from_state=before,
            to_state=job.state,
            fence=job.fence,
            reason=reason,
            data=data,
        )
    )
    session.flush()


def _close(session: Session, job: Job, state: str, actor: Actor, reason: str, **data: Any) -> None:
    """Move a locked job to its end."""
    job.finished_at = func.now()
    job.lease_until = job.wait_reason = job.not_before = None
    job.gpus = []
    _move(session, job, state, actor, reason, **data)


def _in(seconds: float) -> ColumnElement[datetime]:
    return func.now() + timedelta(seconds=seconds)


# ---- for an attempt -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """What an attempt has to do."""

    job_id: str
    owner_id: str
    spec: TrainSpec
    gpus: list[str]
    corpora: list[tuple[str, str]]  # id and content hash
    corpora_name: str
    state: str


def claim(session: Session, *, job_id: str, node: str) -> int | None:
    """Take a job that was placed on this node; answers the fencing number of the new attempt."""
    mine = (Job.id == job_id, Job.state == "queued", Job.desired == "run", Job.node == node)
    job = session.scalar(select(Job).where(*mine).with_for_update())
    if job is None:
        return None
    job.fence += 1
    job.lease_until = _in(settings().lease_seconds)
    job.started_at = job.started_at or func.now()
    job.wait_reason = None
    job.step, job.progress = 0, {}
    metrics.rewind(session, job_id=job_id, from_step=0)
    session.add(Attempt(job_id=job_id, fence=job.fence, node=node))
    _move(session, job, "starting", "worker", "claimed", node=node)
    return job.fence


def assignment(session: Session, *, job_id: str, fence: int) -> Assignment | None:
    """The work of an attempt."""
    job = _held(session, job_id, fence)
    if job is None:
        return None
    spec = TrainSpec.model_validate(job.spec)
    rows = {corpus.id: corpus for corpus in session.scalars(select(Corpus).where(Corpus.id.in_(spec.corpora)))}
    return Assignment(
        job_id=job_id,
        owner_id=job.owner_id,
        spec=spec,
        gpus=job.gpus,
        corpora=[(corpus_id, str(rows[corpus_id].text_sha256)) for corpus_id in spec.corpora],
        corpora_name=", ".join(rows[corpus_id].name for corpus_id in spec.corpora),
        state=job.state,
    )


def _held(session: Session, job_id: str, fence: int) -> Job | None:
    """The job, locked, if this attempt still holds it."""
    mine = (Job.id == job_id, Job.fence == fence, Job.state.in_(HELD))
    return session.scalar(select(Job).where(*mine).with_for_update())


def renew(session: Session, *, job_id: str, fence: int) -> str | None:
    """Go on holding a job; answers what its user wishes."""
    job = _held(session, job_id, fence)
    if job is None:
        return None
    job.lease_until = _in(settings().lease_seconds)
    return job.desired


def record(session: Session, *, job_id: str, fence: int, batch: Sequence[events.Event]) -> str | None:
    """Keep a batch of the attempt's journal, renew its lease; answers the wish. Lines known already are passed over."""
    job = _held(session, job_id, fence)
    if job is None:
        return None
    attempt = session.get_one(Attempt, (job_id, fence))
    new = [event for event in batch if event.seq > attempt.journal_seq]
    if new:
        journal.fold(session, job, new)
        attempt.journal_seq = new[-1].seq
        if job.state == "starting" and job.step > 0:
            _move(session, job, "running", "supervisor", "first_step")
    job.lease_until = _in(settings().lease_seconds)
    return job.desired


def record_tokenizer(
    session: Session, *, job_id: str, fence: int, event: events.TokenizerEvent, work: Assignment
) -> str | None:
    """Keep the tokenizer an attempt trained; answers its id. Put its files in place before the commit."""
    job = _held(session, job_id, fence)
    if job is None:
        return None
    tokenizer: Tokenizer = corpora_service.record_tokenizer(
        session,
        owner_id=job.owner_id,
        name=work.corpora_name[: corpora_service.MAX_NAME_LENGTH],
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
) -> Checkpoint | None:
    """Keep a checkpoint that lies verified in its place. A newer one is progress: earlier setbacks are forgiven."""
    job = _held(session, job_id, fence)
    if job is None:
        return None
    newest = session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id))
    if newest is None or step > newest:
        job.no_progress = 0
    return checkpoints.record(
        session,
        owner_id=job.owner_id,
        job_id=job_id,
        step=step,
        fence=fence,
        path=path,
        manifest=manifest,
        metrics=metrics,
    )


def begin_cancel(session: Session, *, job_id: str, fence: int) -> bool:
    """Say that the attempt is being stopped because the user wished so."""
    job = _held(session, job_id, fence)
    if job is None:
        return False
    if job.state != "cancelling":
        _move(session, job, "cancelling", "supervisor", "wish_cancel")
    return True


def finish(session: Session, *, job_id: str, fence: int) -> bool:
    """All steps are done and the last checkpoint is kept."""
    job = _ended(session, job_id, fence, "finished")
    if job is None:
        return False
    if job.state == "cancelling":
        _close(session, job, "cancelled", "supervisor", "stopped")
    else:
        _close(session, job, "succeeded", "supervisor", "finished")
    return True


def fail(session: Session, *, job_id: str, fence: int, code: str, values: dict[str, Any]) -> bool:
    """The attempt cannot go on, and another would not either. Its processes are gone."""
    job = _ended(session, job_id, fence, code)
    if job is None:
        return False
    if job.state == "cancelling":
        _close(session, job, "cancelled", "supervisor", "stopped")
    else:
        job.failure_code, job.failure = code, values
        _close(session, job, "failed", "supervisor", code, **values)
    return True


def release(session: Session, *, job_id: str, fence: int, reason: str, **data: Any) -> bool:
    """The attempt is over and its processes are gone, but the job is not done."""
    job = _ended(session, job_id, fence, reason)
    if job is None:
        return False
    if job.state == "cancelling":
        _close(session, job, "cancelled", "supervisor", "stopped")
    else:
        _give_up(session, job, "supervisor", reason, **data)
    return True


def _ended(session: Session, job_id: str, fence: int, kind: str) -> Job | None:
    job = _held(session, job_id, fence)
    if job is not None:
        attempt = session.get_one(Attempt, (job_id, fence))
        attempt.ended_at, attempt.exit_kind = func.now(), kind
    return job


def _give_up(session: Session, job: Job, actor: Actor, reason: str, **data: Any) -> None:
    """End a locked job's attempt without a result. Faults of machines cost nothing, others count until a checkpoint."""
    if reason not in ("shutdown", "supervisor_lost", "worker_lost"):
        job.no_progress += 1
    seconds = 0 if reason == "shutdown" else min(300, BACK_OFF_SECONDS * 2**job.no_progress)
    job.not_before = _in(seconds)
    job.lease_until = job.node = None
    job.gpus = []
    job.wait_reason = waiting.encoded("back_off")
    _move(session, job, "recovering", actor, reason, **data)


# ---- for the scheduler ----------------------------------------------------------------------------------------------


def reap(session: Session) -> list[str]:
    """Give up the attempts whose lease ran out; answers their jobs."""
    expired = select(Job).where(Job.state.in_(HELD), Job.lease_until < func.now())
    jobs = session.scalars(expired.with_for_update(skip_locked=True)).all()
    for job in jobs:
        attempt = session.get_one(Attempt, (job.id, job.fence))
        attempt.ended_at, attempt.exit_kind = func.now(), "supervisor_lost"
        _give_up(session, job, "scheduler", "supervisor_lost", node=attempt.node)
    return [job.id for job in jobs]


def settle(session: Session) -> list[str]:
    """Decide about jobs whose attempt was given up: another one, or the end; answers those that moved."""
    lost = select(Job).where(Job.state == "recovering")
    over = or_(Job.not_before <= func.now(), Job.desired != "run", Job.no_progress >= MAX_ATTEMPTS)
    jobs = session.scalars(lost.where(over).with_for_update(skip_locked=True)).all()
    for job in jobs:
        if job.desired == "cancel":
            _close(session, job, "cancelled", "scheduler", "wish_cancel")
        elif job.desired == "pause":
            _move(session, job, "paused", "scheduler")
        elif job.no_progress >= MAX_ATTEMPTS:
            job.failure_code, job.failure = "crash_loop", {"attempts": job.no_progress}
            _close(session, job, "failed", "scheduler", "crash_loop", attempts=job.no_progress)
        else:
            job.not_before = job.wait_reason = None
            _move(session, job, "queued", "scheduler", "back_off_over")
    return [job.id for job in jobs]


def place(session: Session) -> list[str]:
    """Give queued jobs to nodes with room and owe the messages; answers the jobs of which something changed."""
    now = session.execute(select(func.now())).scalar_one()
    live = {node.name: node for node in list_nodes(session) if nodes.is_live(node, now)}
    queued = select(Job).where(Job.state == "queued", Job.desired == "run").order_by(Job.id)
    jobs = session.scalars(queued.with_for_update(skip_locked=True)).all()
    for job in jobs:
        _hint_again(session, job, live, now)
    rooms = nodes.rooms(session, list(live.values()))
    waiting_jobs = {job.id: job for job in jobs if job.node is None}
    asked = [placement.Waiting(job.id, job.spec["num_processes"]) for job in waiting_jobs.values()]
    changed = []
    for decision in placement.place(asked, rooms):
        job = waiting_jobs[decision.job_id]
        if job.wait_reason != decision.wait_reason:
            job.wait_reason = decision.wait_reason
            changed.append(job.id)
        if decision.node is not None:
            job.node, job.gpus = decision.node, decision.gpus
            job.placed_at = job.hinted_at = now
            queue.owe(session, queue.START_JOB, job.id, queue=queue.node_queue(decision.node))
    return changed


def _hint_again(session: Session, job: Job, live: dict[str, Node], now: datetime) -> None:
    """A job that was placed but not claimed: send its message again, or look for another node if this one is gone."""
    if job.node is None or job.hinted_at is None:
        return
    if job.node not in live:
        job.node, job.gpus = None, []
    elif job.hinted_at < now - timedelta(seconds=HINT_SECONDS):
        job.hinted_at = now
        queue.owe(session, queue.START_JOB, job.id, queue=queue.node_queue(job.node))
