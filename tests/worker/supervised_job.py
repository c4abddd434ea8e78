"""A job and the real supervisors of its attempts, for the tests of the worker."""

import os
import subprocess
from typing import Any

import psutil
from sqlalchemy import func, select, update

from app.core import db, storage
from app.core.models import Attempt, Checkpoint, Job
from app.jobs.attempts import attempts, metrics
from app.jobs.lifecycle import notifications
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.users import Person
from tests.waiting import until
from trainer.run_dir import RunDir
from worker.tasks import start_job

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "sequence_length": 16,
    "train_batch_size": 4,
    "per_device_batch_size": 2,
    "warmup_steps": 0,
    "eval_steps": 1_000_000,
    "save_steps": 1_000_000,
}
ENDLESS = {**SMALL, "max_steps": 1_000_000}


class SupervisedJob:
    """A job and the supervisor process of its one attempt."""

    def __init__(self, owner: Person, **fields: Any) -> None:
        corpus = factories.corpus(owner, text=fields.pop("text", factories.TEXT))
        self.owner = owner
        self.job_id, self.fence = factories.started(owner, corpus, **fields)
        self.process = start_job.start_supervisor(self.job_id, self.fence)

    def again(self) -> None:
        """The next attempt, without waiting for the back-off to be over."""
        with db.transaction() as session:
            session.execute(update(Job).where(Job.id == self.job_id).values(not_before=func.now()))
        with db.transaction() as session:
            assert self.job_id in dispatch.requeue_or_fail(session)
        self.claim()

    def claim(self) -> None:
        """Start a queued job."""
        factories.give_to(self.job_id, "ada")
        with db.transaction() as session:
            fence = attempts.claim(session, job_id=self.job_id, node="ada")
        assert fence is not None
        self.fence = fence
        self.process = start_job.start_supervisor(self.job_id, fence)

    def request(self, verb: Any) -> None:
        """What its owner asks for: service.pause, resume or cancel."""
        with db.transaction() as session:
            verb(session, principal=self.owner.principal, job_id=self.job_id)
        notifications.notify_supervisor(self.job_id)

    def attempt(self) -> Attempt:
        """The newest attempt as it is stored."""
        with db.transaction() as session:
            return session.get_one(Attempt, (self.job_id, self.job.fence))

    def saved(self) -> list[Checkpoint]:
        """Its checkpoints that are not damaged, oldest first."""
        is_intact = (Checkpoint.job_id == self.job_id, Checkpoint.state == "ready")
        with db.transaction() as session:
            return list(
                session.scalars(select(Checkpoint).where(*is_intact).order_by(Checkpoint.step, Checkpoint.fence))
            )

    def weights(self) -> str:
        """The hash of the newest weights."""
        files = {entry.name: entry.sha256 for entry in self.saved()[-1].manifest.files}
        return str(files["model.safetensors"])

    @property
    def job(self) -> Job:
        return factories.row(self.job_id)

    def until_step(self, step: int) -> None:
        until(lambda: self.process.poll() is not None or self.job.step >= step, 60, f"step {step}; {self.log()}")
        assert self.process.poll() is None, self.log()

    def ended(self, seconds: float = 60) -> Job:
        """The job once its supervisor is done."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the supervisor goes on: {self.log()}") from None
        return self.job

    def log(self) -> str:
        path = storage.run(self.job_id)
        return "\n".join(p.read_text() for p in (path / "supervisor.log", path / "log.txt") if p.exists())

    def processes(self) -> list[psutil.Process]:
        """The processes of the gang, found by the run directory's log they all hold open."""
        processes = []
        for process in psutil.process_iter():
            try:
                links = [os.readlink(f"/proc/{process.pid}/fd/{n}") for n in (1, 2)]
            except OSError:
                continue
            if str(RunDir(storage.run(self.job_id)).log_path) in links:
                processes.append(process)
        return processes

    def until_gone(self) -> None:
        until(lambda: not self.processes(), 30, "the end of every process")

    def steps(self) -> list[int]:
        with db.transaction() as session:
            window = metrics.Window(0, 2**20, 5_000)
            curves = metrics.curves(session, job_id=self.job_id, window=window, series=["loss"])
        return curves["loss"].steps if curves else []
