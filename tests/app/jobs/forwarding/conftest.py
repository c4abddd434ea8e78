"""Installations that forward to trackers, and jobs whose journals are written by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import delete, update

from app.core import db
from app.core.forwarding_models import JobForwarding
from app.core.models import Job
from app.core.settings import settings
from app.jobs.forwarding import service, trackers
from app.jobs.forwarding.forwarder import forward_due
from app.jobs.forwarding.service import Claimed
from app.jobs.forwarding.tracker_process import TrackerProcess
from app.jobs.forwarding.trackers import Tracker
from tests.app.jobs import factories
from tests.users import Person
from trainer import events

Configure = Callable[..., Tracker]


@pytest.fixture(autouse=True)
def empty(database: str) -> Iterator[None]:
    factories.node(slots=100)
    yield
    with db.transaction() as session:
        session.execute(delete(Job))


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Sets settings, by their names without ATHANOR_, and returns the tracker that they configure."""

    def configure_tracker(**variables: str) -> Tracker:
        for name, value in variables.items():
            monkeypatch.setenv(f"ATHANOR_{name.upper()}", value)
        settings.cache_clear()
        (tracker,) = trackers.configured()
        return tracker

    yield configure_tracker
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture(scope="module")
def process() -> Iterator[Callable[[Tracker], TrackerProcess]]:
    """The process of a tracker, which takes seconds to start and serves all tests of a module."""
    processes: dict[str, TrackerProcess] = {}

    def start(tracker: Tracker) -> TrackerProcess:
        return processes.setdefault(tracker.target, TrackerProcess(tracker))

    yield start
    for started in processes.values():
        started.close()


def training(person: Person, num_steps: int, **given: Any) -> tuple[str, int]:
    """A running job that has trained so many steps; returns its ID and fence."""
    spec: dict[str, Any] = {"max_steps": 40, "warmup_steps": 1, "name": "Scribe", **given}
    job_id, fence = factories.started(person, factories.corpus(person), **spec)
    train(job_id, fence, range(1, num_steps + 1))
    return job_id, fence


def train(job_id: str, fence: int, steps: range, first_seq: int = 1) -> None:
    """A journal with a line of training losses for each step, and one of the validation loss for every fourth."""
    lines: list[events.Event] = []
    for step in steps:
        values = {"loss": loss(step), "learning_rate": 0.001, "gpu_percent": 50.0}
        at = 1_000_000.0 * fence + step
        lines.append(_line(first_seq + len(lines), at, step, values))
        if step % 4 == 0:
            lines.append(_line(first_seq + len(lines), at, step, {"eval_loss": loss(step) + 1}))
    factories.record(job_id, fence, lines)


def _line(seq: int, at: float, step: int, values: dict[str, float]) -> events.Event:
    return events.PointsEvent(seq=seq, at=at, step=step, values=values)  # type: ignore[arg-type]


def loss(step: int) -> float:
    """The training loss of a step, which a 32-bit float can hold."""
    return 4 - step / 64


def curve(last_step: int, first_step: int = 1, every: int = 1) -> list[tuple[int, float]]:
    """The steps and losses that a tracker must have."""
    return [(step, loss(step) + (every > 1)) for step in range(first_step, last_step + 1) if step % every == 0]


def training_sent_twice(person: Person, tracker: Tracker, sender: TrackerProcess) -> tuple[str, int]:
    """A running job of twelve steps that are all forwarded; returns its ID and fence.

    The tracker got the first five before: the scheduler died before it recorded that.
    """
    job_id, fence = training(person, 5)
    begin()
    sender.send(claim(tracker, job_id))
    train(job_id, fence, range(6, 13), first_seq=7)
    make_due()
    assert forward_due(tracker, sender) == 1
    return job_id, fence


def begin() -> None:
    """The scheduler's round."""
    with db.transaction() as session:
        service.begin_new(session)


def row(job_id: str, tracker: Tracker) -> JobForwarding:
    """How far a job has been forwarded."""
    with db.transaction() as session:
        return session.get_one(JobForwarding, (job_id, tracker.name))


def claim(tracker: Tracker, job_id: str) -> Claimed:
    """The next batch of a job."""
    with db.transaction() as session:
        claimed = service.claim(session, tracker, job_id)
    assert claimed is not None
    return claimed


def make_due() -> None:
    """The claims and pauses of all jobs have passed."""
    with db.transaction() as session:
        session.execute(update(JobForwarding).values(due_at=db.now()))
