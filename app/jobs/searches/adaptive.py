"""Searches whose later jobs depend on what earlier ones have reached: the scheduler submits each as a place is free.

Optuna chooses the values, in a child process (trainer/tuning/suggest.py): it needs numpy, which the scheduler does not
load, and a fraction of a second, in which the scheduler does not wait.
"""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core import db
from app.core.account_models import User
from app.core.errors import PanelError
from app.core.models import TERMINAL, HyperparameterSearch, Job
from app.core.principal import background_principal
from app.core.roles import is_at_least
from app.core.search_shapes import AdaptivePlan, FieldValue, SearchTrial
from app.core.settings import ROOT
from app.jobs.lifecycle import notifications
from app.jobs.searches import service
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits, limited_command

log = logging.getLogger(__name__)

LIMITS = ChildLimits(memory_bytes=2 << 30, cpu_seconds=60, file_bytes=0, niceness=0)
WAIT_SECONDS = 120.0  # for the child, on a busy machine
PAUSE_SECONDS = 60.0  # after which a search is tried again
PASSING = (403, 429, 503, 507)  # errors of a full quota, queue or disk: the job is submitted later
# Errors of what the jobs have in common, which may become right again: in the trash, being read.
WAITING = (
    *("base_unknown", "checkpoint_missing", "checkpoint_unknown", "corpus_failed", "corpus_parsing", "corpus_unknown"),
    *("in_trash", "no_node", "not_found"),
)


class AdaptiveSearches:
    """The searches that get their next job from the process that leads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # seconds
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._under_way = set[str]()
        self._not_before: dict[str, float] = {}  # of searches whose last try failed
        self._lock = threading.Lock()

    def begin(self, session: Session) -> list[str]:
        """Begin to extend the searches that are due. Their jobs come later, so that none is returned."""
        due = due_searches(session)
        with self._lock:
            now = self._clock()
            new = [one for one in due if one not in self._under_way and self._not_before.get(one, now) <= now]
            self._under_way |= set(new)
        for search_id in new:
            self._executor.submit(self._extend, search_id)
        return []

    def _extend(self, search_id: str) -> None:
        not_before = None
        try:
            extend(search_id)
        except Exception as error:  # would vanish in the executor
            not_before = self._clock() + PAUSE_SECONDS
            log.log(logging.INFO if isinstance(error, PanelError) else logging.ERROR, "search %s: %s", search_id, error)
        with self._lock:
            self._under_way.discard(search_id)
            self._not_before.pop(search_id, None)
            if not_before is not None:
                self._not_before[search_id] = not_before


def due_searches(session: Session) -> list[str]:
    """The searches that may have another job now."""
    num_open = select(func.count()).where(Job.search_id == HyperparameterSearch.id, Job.state.not_in(TERMINAL))
    at_once = HyperparameterSearch.plan["parallel_jobs"].as_integer()
    due = select(HyperparameterSearch.id).where(HyperparameterSearch.is_open, num_open.scalar_subquery() < at_once)
    return list(session.scalars(due.order_by(HyperparameterSearch.id)))


def extend(search_id: str) -> str | None:
    """Submit the next job of a search, and return its ID; None if it has none now.

    Values that a job cannot have count as one of the jobs. Raises PanelError for what may pass, such as a full quota.
    """
    with db.transaction() as session:
        search = session.get(HyperparameterSearch, search_id)
        if search is None or not search.is_open or search.plan is None:
            return None
        plan, question = search.plan, _question(session, search.plan)
    chosen = ask_optuna(question)
    with db.transaction() as session:
        if chosen is None:
            session.execute(
                update(HyperparameterSearch).where(HyperparameterSearch.id == search_id).values(is_open=False)
            )
            return None
        job_id = _submit(session, search_id, len(plan.trials), _rounded(plan, chosen))
    if job_id is not None:
        notifications.notify_job_changed(job_id)
    return job_id


def ask_optuna(question: dict[str, Any]) -> dict[str, FieldValue] | None:
    """The values of the next job; None if all were tried.

    Raises RuntimeError if the child fails, and subprocess.TimeoutExpired.
    """
    child = subprocess.run(
        limited_command(LIMITS, [sys.executable, "-m", "trainer.tuning.suggest"]),
        cwd=ROOT,
        env=child_environment("search"),
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    if child.returncode:
        raise RuntimeError(f"Optuna failed: {child.stderr[-2000:]}")
    values: dict[str, FieldValue] | None = json.loads(child.stdout)
    return values


def _question(session: Session, plan: AdaptivePlan) -> dict[str, Any]:
    """What trainer/tuning/suggest.py reads: where values come from, and what the jobs so far have reached."""
    losses = _losses(session, plan.trials)
    ranges = {name: {**bounds.model_dump(), "is_whole": service.is_whole(name)} for name, bounds in plan.ranges.items()}
    trials = [
        {"values": trial.values, "loss": "failed" if trial.job_id is None else losses[trial.job_id]}
        for trial in plan.trials
    ]
    return {"grid": plan.grid, "ranges": ranges, "seed": plan.seed, "trials": trials}


def _losses(session: Session, trials: Sequence[SearchTrial]) -> dict[str, float | str | None]:
    """By job, its least validation loss; None while it is under way, and "failed" if it ended without one."""
    ids = [trial.job_id for trial in trials if trial.job_id is not None]
    reached = service.least_validation_losses(session, ids)
    states = {row.id: row.state for row in session.execute(select(Job.id, Job.state).where(Job.id.in_(ids)))}
    return {
        job_id: None if states.get(job_id, "cancelled") not in TERMINAL else reached.get(job_id, "failed")
        for job_id in ids
    }


def _rounded(plan: AdaptivePlan, values: dict[str, FieldValue]) -> dict[str, FieldValue]:
    rounded = dict(values)
    for name, bounds in plan.ranges.items():
        value = values[name]
        assert isinstance(value, int | float)
        rounded[name] = bounds.rounded(value, is_whole=service.is_whole(name))
    return rounded


def _submit(session: Session, search_id: str, num_trials: int, values: dict[str, FieldValue]) -> str | None:
    """Submit a job with these values as its owner would, if the search is still as it was when they were chosen."""
    locked = select(HyperparameterSearch).where(HyperparameterSearch.id == search_id).with_for_update()
    search = session.scalar(locked)
    if search is None or not search.is_open or search.plan is None or len(search.plan.trials) != num_trials:
        return None
    owner = session.get_one(User, search.owner_id)
    if owner.disabled_at is not None or not is_at_least(owner.role, "member"):
        search.is_open = False
        return None
    principal = background_principal(owner)
    key = f"search-{search.id}-{num_trials}"
    job_id = None
    try:
        with session.begin_nested():
            job, _is_new = service.submit_job(session, principal, search.name, search.plan.spec, values, key)
            job.search_id, job_id = search.id, job.id
    except PanelError as error:
        if error.status in PASSING or error.code in WAITING:
            raise
        log.info("search %s: a job was refused: %s", search.id, error)
    trials = [*search.plan.trials, SearchTrial(values=values, job_id=job_id)]
    search.plan = search.plan.model_copy(update={"trials": trials})
    search.is_open = len(trials) < search.plan.num_jobs
    return job_id
