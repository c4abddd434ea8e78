"""Random histories of jobs: verbs on the real database, each compared with what reference_state_machine.py expects."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core import db
from app.core.errors import PanelError
from app.core.models import Job, JobEvent, MetricPoint, MetricRollup
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.cluster import nodes
from app.jobs.lifecycle.transitions import TRANSITIONS
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.app.jobs.reference_state_machine import ENDED, HELD, Life
from tests.users import Person
from trainer import events

WISHES = {"run": service.resume, "pause": service.pause, "cancel": service.cancel}
MANIFEST = {"files": [{"name": "resume/state", "size": 8, "sha256": "0" * 64}]}
SAVE_FAILED = {"free": 3, "needed": 6, "why": "disk full"}


class Lives(RuleBasedStateMachine):
    """One job after the other. All of a sequence is one transaction, each verb a savepoint in it: nothing stays."""

    alice: ClassVar[Person]
    corpus: ClassVar[str]
    num_sequences: ClassVar[int]
    num_verbs: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        Lives.num_sequences += 1
        self.connection = db.engine().connect()
        self.transaction = self.connection.begin()
        with self.session() as session:
            facts = {"num_cpus": 2, "memory_bytes": 2**33, "gpus": [], "slots": 9, "telemetry": {}}
            nodes.heartbeat(session, name="ada", started_at=func.now(), **facts)

    def teardown(self) -> None:
        self.transaction.rollback()
        self.connection.close()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """What db.transaction() gives, within the one transaction."""
        mode: Any = "create_savepoint"
        Lives.num_verbs += 1
        with Session(self.connection, expire_on_commit=False, join_transaction_mode=mode) as session, session.begin():
            yield session

    def verb(self, function: Callable[..., Any], **given: Any) -> Any:
        with self.session() as session:
            return function(session, **given)

    def supervise(self, function: Callable[..., Any], **given: Any) -> Any:
        """What the present attempt does."""
        return self.verb(function, job_id=self.job_id, fence=self.life.fence, **given)

    def change(self, **values: Any) -> None:
        self.connection.execute(update(Job).where(Job.id == self.job_id).values(**values))

    # ---- people and scheduler ----

    @initialize()
    def first(self) -> None:
        self.submit()

    @precondition(lambda self: self.life.state in ENDED)
    @rule()
    def submit(self) -> None:
        given = {"corpora": [self.corpus]}
        job, is_new = self.verb(service.submit, principal=self.alice.principal, request=given)
        assert is_new
        self.job_id, self.life, self.seq = job.id, Life(), 0

    @rule(desired=st.sampled_from(["run", "pause", "run", "pause", "cancel"]))
    def request(self, desired: str) -> None:
        refused = "job_ended" if self.life.state in ENDED else "job_cancelling"
        given = {"principal": self.alice.principal, "job_id": self.job_id}
        if self.life.request(desired):
            self.verb(WISHES[desired], **given)
            return
        with pytest.raises(PanelError) as refusal:
            self.verb(WISHES[desired], **given)
        assert (refusal.value.status, refusal.value.code) == (409, refused)

    @precondition(lambda self: self.life.state in ("queued", "recovering"))
    @rule(is_later=st.booleans())
    def scheduler_turns(self, is_later: bool) -> None:
        if is_later and self.life.state == "recovering":  # the back-off is over
            self.change(not_before=func.now() - timedelta(seconds=1))
            self.life.is_backing_off = False
        assert self.verb(dispatch.expire_leases) == []
        assert (self.job_id in self.verb(dispatch.requeue_or_fail)) == self.life.settle()
        self.verb(dispatch.place)
        self.life.place()

    @precondition(lambda self: self.life.state in HELD)
    @rule()
    def lease_expires(self) -> None:
        self.change(lease_until=func.now() - timedelta(seconds=1))
        assert self.verb(dispatch.expire_leases) == [self.job_id]
        self.life.lose("supervisor_lost")

    @precondition(lambda self: self.life.state not in HELD)
    @rule(node=st.sampled_from(["ada", "ada", "ada", "grace"]))
    def claim(self, node: str) -> None:
        expected = self.life.claim() if node == "ada" else None
        assert self.verb(attempts.claim, job_id=self.job_id, node=node) == expected
        self.seq = 0 if expected else self.seq

    # ---- the attempt ----

    @precondition(lambda self: self.life.state in HELD and not self.life.has_begun)
    @rule(is_damaged=st.booleans())
    def begin(self, is_damaged: bool) -> None:
        work = self.supervise(attempts.assignment)
        whole = {step for (step, _fence), is_whole in self.life.saved.items() if is_whole}
        assert {saved.step for saved in work.saved} <= whole
        assert not work.saved or work.saved[0].step == max(whole)
        damaged = work.saved[: int(is_damaged)]
        choice = next(iter(work.saved[len(damaged) :]), None)
        passed_over = [(saved.id, "model.safetensors") for saved in damaged]
        step = choice.step if choice is not None else 0
        self.supervise(attempts.resume_at, step=step, saved=choice, damaged=passed_over)
        for saved in damaged:
            newest = max(key for key, is_whole in self.life.saved.items() if is_whole and key[0] == saved.step)
            self.life.saved[newest] = False
        self.life.resume_at(step)

    @precondition(lambda self: self.life.state in ("queued", "paused", "recovering"))
    @rule(is_damaged=st.booleans(), steps=st.integers(0, 2), does_save=st.booleans(), num_hangs=st.integers(0, 3))
    def attempt(self, is_damaged: bool, steps: int, does_save: bool, num_hangs: int) -> None:
        """All the way to a training attempt, some that hang before it, so that a sequence gets far."""
        if self.life.state == "paused":
            self.request("run")
        self.scheduler_turns(is_later=True)
        for _ in range(num_hangs):
            self.claim(node="ada")
            if self.life.state in HELD:
                self.end(how="hang")
                self.scheduler_turns(is_later=not does_save)
        if self.life.state == "queued":
            self.claim(node="ada")
            self.begin(is_damaged=is_damaged)
            if steps:
                self.train(steps=steps, is_repeated=False)
            if does_save and self.life.step:
                self.save()

    @precondition(lambda self: self.life.state in HELD and self.life.has_begun)
    @rule(steps=st.integers(1, 5), is_repeated=st.booleans())
    def train(self, steps: int, is_repeated: bool) -> None:
        losses = [9.0 / (self.life.step + n) for n in range(1, steps + 1)]
        batch = factories.losses(losses, first_step=self.life.step + 1, first_seq=self.seq + 1)
        self.seq += steps
        for _ in range(1 + is_repeated):
            assert self.supervise(attempts.record, batch=batch) == self.life.desired
        self.life.train(steps)

    @precondition(lambda self: self.life.state in HELD and self.life.has_begun and self.life.step)
    @rule()
    def save(self) -> None:
        path = f"runs/{self.job_id}/{self.life.fence}/{self.life.step}"
        given = {"step": self.life.step, "path": path, "manifest": MANIFEST, "metrics": {"eval_loss": 1.0}}
        assert self.supervise(attempts.record_checkpoint, **given) is not None
        self.life.save()

    @precondition(lambda self: self.life.state in HELD and self.life.has_begun)
    @rule()
    def fail_to_save(self) -> None:
        self.seq += 1
        event = events.SaveFailedEvent(seq=self.seq, at=1.0, step=self.life.step, **SAVE_FAILED)
        self.life.fail_save()
        assert self.supervise(attempts.record, batch=[event]) == self.life.desired

    @precondition(lambda self: self.life.state in HELD)
    @rule()
    def renew(self) -> None:
        assert self.supervise(attempts.renew) == self.life.desired

    @precondition(lambda self: self.life.state in HELD and self.life.desired != "run")
    @rule(is_late=st.booleans())
    def begin_stop(self, is_late: bool) -> None:
        state = {"pause": "pausing", "cancel": "cancelling"}[self.life.desired]
        if is_late and self.life.desired == "pause":  # its user thinks better of it while it stops
            self.request("run")
        self.supervise(attempts.begin_stop, state=state)
        self.life.begin_stop(state)

    @precondition(lambda self: self.life.state in HELD)
    @rule(how=st.sampled_from(["finish", "oom_gpu", "oom_gpu", "nan_loss", "shutdown", "gpu_busy", "hang", "hang"]))
    def end(self, how: str) -> None:
        if how == "finish":
            self.supervise(attempts.finish)
            self.life.finish()
        elif how in ("oom_gpu", "nan_loss"):
            self.supervise(attempts.fail, code=how, values={"step": self.life.step + 1})
            self.life.fail(how)
        else:
            self.supervise(attempts.release, reason=how)
            self.life.release(how)

    @precondition(lambda self: self.life.fence and (self.life.fence > 1 or self.life.state not in HELD))
    @rule()
    def zombie_writes(self) -> None:
        """Whoever does not hold the job any more, or never did, changes nothing."""
        fence = self.life.fence - (self.life.state in HELD)
        verbs: list[tuple[Callable[..., Any], dict[str, Any]]] = [
            (attempts.assignment, {}),
            (attempts.resume_at, {"step": 0, "saved": None, "damaged": []}),
            (attempts.renew, {}),
            (attempts.record, {"batch": factories.losses([0.5], first_step=99, first_seq=999)}),
            (attempts.record_checkpoint, {"step": 99, "path": "x", "manifest": MANIFEST, "metrics": {}}),
            (attempts.begin_stop, {"state": "cancelling"}),
            (attempts.finish, {}),
            (attempts.fail, {"code": "nan_loss", "values": {}}),
            (attempts.release, {"reason": "hang"}),
        ]
        for verb, values in verbs:
            with pytest.raises(attempts.LeaseLost):
                self.verb(verb, **values, job_id=self.job_id, fence=fence)

    # ---- what must hold ----

    @invariant()
    def is_as_the_reference_says(self) -> None:
        life = self.life
        mine = Job.id == self.job_id
        row = self.connection.execute(
            select(Job.state, Job.desired, Job.fence, Job.no_progress, Job.step, Job.node.is_not(None)).where(mine)
        ).one()
        is_placed = life.is_placed if life.state not in ENDED else row[5]
        assert tuple(row) == (life.state, life.desired, life.fence, life.no_progress, life.step, is_placed)
        live = select(MetricPoint.step, MetricPoint.fence).where(MetricPoint.job_id == self.job_id)
        rows = self.connection.execute(live.where(~MetricPoint.archived, MetricPoint.series == "loss")).all()
        rolled_up = select(func.sum(MetricRollup.count)).where(MetricRollup.job_id == self.job_id)
        assert (self.connection.scalar(rolled_up.where(MetricRollup.level == 1)) or 0) == len(life.points)
        assert sorted((step, fence) for step, fence in rows) == sorted(life.points.items())

    @precondition(lambda self: self.life.state in ENDED)
    @invariant()
    def its_history_leads_there_by_legal_moves(self) -> None:
        told = select(JobEvent).where(JobEvent.job_id == self.job_id).order_by(JobEvent.seq)
        moves = [(event.from_state, event.to_state) for event in Session(self.connection).scalars(told)]
        assert moves[0] == (None, "queued")
        state = "queued"
        for before, after in moves[1:]:
            assert before == state
            assert before == after or (before, after) in TRANSITIONS
            state = after
        assert state == self.life.state


def live(person: Person, *, sequences: int, verbs: int, seed_number: int) -> str:
    """So many random lives, and their number in words; a divergence is shrunk to its shortest and shown."""
    Lives.alice, Lives.corpus, Lives.num_sequences, Lives.num_verbs = person, factories.corpus(person), 0, 0
    wanted = settings(
        max_examples=sequences,
        stateful_step_count=verbs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(seed_number)(Lives), settings=wanted)
    return f"{Lives.num_sequences} sequences, {Lives.num_verbs} verbs, seed {seed_number}: no divergence"
