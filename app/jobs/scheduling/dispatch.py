"""What the scheduler does: expire leases, retry or fail lost jobs, place queued jobs on nodes."""

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.core import db, disk, queue, quotas
from app.core.models import HELD, Attempt, Job, Node
from app.core.settings import settings
from app.jobs.attempts import progress
from app.jobs.attempts.attempts import release_for_retry
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.cluster import forecast, nodes, placement
from app.jobs.cluster.nodes import list_nodes
from app.jobs.lifecycle import retention, wait_reasons
from app.jobs.lifecycle.state import finish, set_state

log = logging.getLogger(__name__)

PLACING_LOCK = 0x706C61  # of a transaction: one round at a time, even where two schedulers believe they lead
STARTUP_SECONDS = 15.0  # of a job before its first step, in forecasts, where its plan does not say it
MAX_FORECAST_SECONDS = 365 * 86_400.0
MAX_ATTEMPTS = 3  # in a row without a newer checkpoint


def expire_leases(session: Session) -> list[str]:
    """End the attempts whose lease has expired; returns the ids of their jobs."""
    expired = select(Job).where(Job.state.in_(HELD), Job.lease_until < func.now())
    jobs = session.scalars(expired.with_for_update(skip_locked=True)).all()
    now = db.now()
    for job in jobs:
        attempt = session.get_one(Attempt, (job.id, job.fence))
        node = session.get(Node, attempt.node)
        reason = "supervisor_lost" if node is not None and nodes.is_live(node, now) else "node_lost"
        attempt.ended_at, attempt.exit_kind, attempt.exit_data = func.now(), reason, {"node": attempt.node}
        release_for_retry(session, job, "scheduler", reason, node=attempt.node)
    return [job.id for job in jobs]


def requeue_or_fail(session: Session) -> list[str]:
    """Retry or end the jobs whose attempt was lost; returns the ids of those that changed state."""
    lost = select(Job).where(Job.state == "recovering")
    over = or_(Job.not_before <= func.now(), Job.desired != "run", Job.no_progress >= MAX_ATTEMPTS)
    jobs = session.scalars(lost.where(over).with_for_update(skip_locked=True)).all()
    return [job.id for job in jobs if _is_settled(session, job)]


def _is_settled(session: Session, job: Job) -> bool:
    """Retry or end one job. An error is logged and does not affect other jobs."""
    try:
        with session.begin_nested():
            _settle(session, job)
    except DBAPIError as error:
        if db.is_outage(error):
            raise
        log.exception("the job %s cannot be settled", job.id)
        return False
    return True


def _settle(session: Session, job: Job) -> None:
    if retention.record_unrecorded(session, job):
        job.no_progress = 0
    if job.desired == "cancel":
        finish(session, job, "cancelled", "scheduler", "wish_cancel")
    elif job.desired == "pause":
        job.not_before = job.wait_reason = None
        set_state(session, job, "paused", "scheduler", "wish_pause")
    elif job.no_progress >= MAX_ATTEMPTS:
        _end_crash_loop(session, job)
    else:
        job.not_before = job.wait_reason = None
        set_state(session, job, "queued", "scheduler", "back_off_over")


def _end_crash_loop(session: Session, job: Job) -> None:
    attempt = session.get_one(Attempt, (job.id, job.fence))
    job.failure_code = "crash_loop"
    job.failure = {"attempts": job.no_progress, "last": attempt.exit_kind, "last_values": attempt.exit_data}
    finish(session, job, "failed", "scheduler", "crash_loop", attempts=job.no_progress)


def place(session: Session) -> list[str]:
    """Place queued jobs on nodes with room and enqueue their messages; returns the ids of the jobs that changed."""
    session.execute(select(func.pg_advisory_xact_lock(PLACING_LOCK)))
    now = db.now()
    candidates = _candidates(session, now)
    live = {node.name: node for node in candidates if nodes.is_live(node, now) and not node.is_draining}
    jobs = session.scalars(_queued().with_for_update(skip_locked=True)).all()
    for job in jobs:
        _hint_again(session, job, live, now)
    capacities, jobs_per_owner = nodes.capacities(session, candidates, now)
    waiting_jobs = {job.id: job for job in jobs if job.node is None}
    waiting = [_waiting_job(job, now) for job in waiting_jobs.values()]
    changed, in_line = [], []
    for decision in _decide(session, waiting, capacities, jobs_per_owner):
        job = waiting_jobs[decision.job_id]
        if job.wait_reason != decision.wait_reason:
            job.wait_reason = decision.wait_reason
            changed.append(job.id)
        if decision.node is None:
            in_line.append(job)
        else:
            job.node, job.gpus = decision.node, decision.gpus
            job.placed_at = job.hinted_at = now
            queue.enqueue_after_commit(session, queue.START_JOB, job.id, queue=queue.node_queue(decision.node))
    return [*changed, *_forecast(session, in_line, capacities, now)]


def queue_order(session: Session) -> list[Job]:
    """The jobs that wait for a place, in the order in which they get one."""
    now = db.now()
    waiting_jobs = {job.id: job for job in session.scalars(_queued().where(Job.node.is_(None)))}
    waiting = [_waiting_job(job, now) for job in waiting_jobs.values()]
    capacities, jobs_per_owner = nodes.capacities(session, _candidates(session, now), now)
    return [waiting_jobs[decision.job_id] for decision in _decide(session, waiting, capacities, jobs_per_owner)]


def _queued() -> Select[Job]:
    return select(Job).where(Job.state == "queued", Job.desired == "run").order_by(Job.id)


def _candidates(session: Session, now: datetime) -> list[Node]:
    return [node for node in list_nodes(session) if nodes.is_known(node, now)]


def _decide(
    session: Session,
    waiting: Sequence[placement.WaitingJob],
    capacities: Sequence[placement.NodeCapacity],
    jobs_per_owner: Mapping[str, int],
) -> list[placement.Decision]:
    """Where each waiting job goes, or why it waits: a full disk or a quota comes before its place in the queue."""
    if disk.is_full():
        return placement.hold(waiting, "disk_full")
    owners = {job.owner_id for job in waiting}
    exhausted = quotas.exhausted_gpu_quotas(session, owners) if any(node.gpus for node in capacities) else {}
    over_quota = [
        decision
        for owner, hours in exhausted.items()
        for decision in placement.hold([job for job in waiting if job.owner_id == owner], "gpu_quota", hours=hours)
    ]
    others = [job for job in waiting if job.owner_id not in exhausted]
    limits = quotas.job_limits(session, owners)
    return placement.place(others, capacities, jobs_per_owner, settings().max_running_per_user, limits) + over_quota


def _forecast(
    session: Session, waiting: Sequence[Job], capacities: Sequence[placement.NodeCapacity], now: datetime
) -> list[str]:
    """Estimate when waiting jobs, in their order, will start, and after which job; returns the ids of those for which
    that changed much.
    """
    in_line = [job for job in waiting if wait_reasons.is_in_line(job)]
    if not in_line:
        return []
    busy = session.scalars(select(Job).where(Job.node.is_not(None), Job.state.in_(("queued", *HELD)))).all()
    node_forecasts = [
        forecast.NodeForecast(node, [_end_of(job) for job in busy if job.node == node.name])
        for node in capacities
        if node.takes_jobs
    ]
    queued = [forecast.QueuedJob(job.id, job.spec.num_processes, _seconds_left(job)) for job in in_line]
    starts = forecast.starts(queued, node_forecasts)
    changed = []
    for job in in_line:
        start = starts.get(job.id, forecast.Start(math.inf))
        at = now + timedelta(seconds=start.seconds) if start.seconds < MAX_FORECAST_SECONDS else None
        if _differs(job.expected_start_at, at, now) or job.starts_after_id != start.after:
            job.expected_start_at, job.starts_after_id = at, start.after
            changed.append(job.id)
    return changed


def _end_of(job: Job) -> forecast.JobEnd:
    return forecast.JobEnd(_seconds_left(job), len(job.gpus) or 1, job.id)


def _seconds_left(job: Job) -> float:
    """How long a job will still run: as measured, else as planned; inf where neither is known."""
    measured = progress.eta_seconds(job.progress, effective_spec(job), job.step) if job.state in HELD else None
    if measured is not None and job.progress.phase not in ("prepare", "tokenise"):
        return measured
    if job.facts.planned is None or job.max_steps is None:
        return math.inf
    startup, step = job.facts.planned.startup_seconds, job.facts.planned.step_seconds
    return (startup.value if startup else STARTUP_SECONDS) + (job.max_steps - job.step) * step.value


def _differs(before: datetime | None, after: datetime | None, now: datetime) -> bool:
    """Whether an estimate changed by more than a minute and a tenth of what is left."""
    if before is None or after is None:
        return before is not after
    return abs((after - before).total_seconds()) > max(60.0, 0.1 * (after - now).total_seconds())


def _waiting_job(job: Job, now: datetime) -> placement.WaitingJob:
    if job.queue_number is not None:
        rank, since = placement.PLACED, float(job.queue_number)
    else:
        waited = (now - job.queued_at).total_seconds()
        rank, since = placement.rank(job.priority, waited, settings().aging_seconds), job.queued_at.timestamp()
    return placement.WaitingJob(job.id, job.spec.num_processes, job.owner_id, rank, since)


def _hint_again(session: Session, job: Job, live: dict[str, Node], now: datetime) -> None:
    """A job that was placed but not claimed: resend its message, or release it if its node takes no jobs any more."""
    if job.node is None or job.hinted_at is None:
        return
    if job.node not in live:
        job.node, job.gpus = None, []
    elif job.hinted_at < now - timedelta(seconds=settings().hint_seconds):
        job.hinted_at = now
        queue.enqueue_after_commit(session, queue.START_JOB, job.id, queue=queue.node_queue(job.node))
