"""A real supervisor over real training, through the ends an attempt can have."""

import signal
from typing import Any

import psutil
import psycopg
import pytest
import torch
from sqlalchemy import select, update

from app.base_models import service as base_models
from app.core import db, processes, storage
from app.core.models import Attempt, Checkpoint, Job, Tokenizer
from app.core.node_budget import VARIABLE, node_budget
from app.core.settings import settings
from app.corpora import tokenizers as stored_tokenizers
from app.jobs import service, stream
from app.jobs.attempts import metrics
from app.jobs.lifecycle import notifications
from app.jobs.scheduling import dispatch
from tests import folders
from tests.app.jobs import factories
from tests.users import Person
from tests.waiting import until
from tests.worker.supervised_job import ENDLESS, SMALL
from trainer.planning.memory import HOST_BYTES_PER_GPU_PROCESS
from trainer.run_dir import RunDir, verify
from worker.node import ForkServer
from worker.runtime import Worker
from worker.sandbox.model_import import validate
from worker.tasks import start_job

pytestmark = pytest.mark.usefixtures("fork_server")


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_job_trains_to_its_end_with_all_outputs(start: Any, alice_user: Person, num_processes: int) -> None:
    given = {**SMALL, "max_steps": 12, "save_steps": 5, "eval_steps": 6, "num_processes": num_processes}
    attempt = start(**given, zero_stage=num_processes - 1)
    job = attempt.ended()
    assert job.state == "succeeded", attempt.log()
    assert (job.step, attempt.steps()) == (12, list(range(1, 13)))
    assert job.facts.vocab_size == 300
    assert [state for state, _ in factories.reasons(job.id)] == ["queued", "starting", "running", "succeeded"]
    with db.transaction() as session:
        saved = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step)).all()
        assert [(row.step, row.fence) for row in saved] == [(5, 1), (10, 1), (12, 1)]
        for row in saved:
            assert verify(storage.checkpoint(row.path)) == row.manifest.model_dump(exclude_unset=True)
        assert saved[-1].metrics["eval_loss"] > 0
        assert [sample.step for sample in stream.samples(session, job_id=job.id)] == [0, 6, 12]
        memory = metrics.curves(session, job_id=job.id, window=metrics.Window(0, 13), series=["memory_bytes"])
        assert job.facts.usage is not None
        assert 0.5 < (memory["memory_bytes"].max[0] or 0) / job.facts.usage.peak_bytes <= 1.1
        tokenizer = session.get_one(Tokenizer, job.tokenizer_id)
        assert (tokenizer.vocab_size, tokenizer.owner_id) == (300, alice_user.id)
        assert session.get_one(Attempt, (job.id, 1)).exit_kind == "finished"
        again = stored_tokenizers.usable_tokenizer(session, principal=alice_user.principal, tokenizer_id=tokenizer.id)
    assert (storage.tokenizer(again.id) / "tokenizer.json").is_file()
    assert attempt.processes() == []
    assert processes.supervisors() == []


def test_a_job_starts_from_an_imported_model_and_fails_where_that_is_damaged(start: Any, alice_user: Person) -> None:
    base_id = imported(alice_user)
    given = {
        **{name: SMALL[name] for name in FINE_TUNING_FIELDS},
        "base_model": base_id,
        "max_steps": 2,
        "learning_rate": 1e-9,
    }
    attempt = start(**given)
    job = attempt.ended()
    assert job.state == "succeeded", attempt.log()
    before = folders.weights(storage.base_model(base_id))
    after = folders.weights(storage.checkpoint(attempt.saved()[-1].path))
    assert {name: tensor.shape for name, tensor in after.items()} == {name: t.shape for name, t in before.items()}
    assert all(torch.allclose(tensor, before[name], atol=1e-6) for name, tensor in after.items())
    again = start(**{**given, "base_model": attempt.saved()[-1].id})
    (storage.base_model(base_id) / "model.safetensors").write_bytes(b"other")
    damaged = start(**given)
    failed = damaged.ended()
    assert (failed.state, failed.failure_code) == ("failed", "base_damaged")
    assert failed.failure == {"why": "model.safetensors differs from what was checked"}
    assert again.ended().state == "succeeded", again.log()


FINE_TUNING_FIELDS = (
    "sequence_length",
    "train_batch_size",
    "per_device_batch_size",
    "warmup_steps",
    "eval_steps",
    "save_steps",
)


def imported(owner: Person) -> str:
    """Create a tiny Llama that was validated; returns its ID."""
    with db.transaction() as session:
        model = base_models.create(session, principal=owner.principal, name="tiny")
        folders.saved(storage.base_model(model.id))
        base_models.begin_import(session, principal=owner.principal, model_id=model.id)
        result = validate.report_result(storage.base_model(model.id), 1 << 30, 1 << 40)["result"]
        base_models.finish_import(session, model_id=model.id, result=result)
        return model.id


def test_the_trainer_gets_no_secrets(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = start(**ENDLESS)
    attempt.until_step(1)
    members = attempt.processes()
    assert members
    for process in members:
        names = set(process.environ())
        own = {name for name in names if name.startswith("ATHANOR_") or name in ("DATABASE_URL", "REDIS_URL")}
        assert own <= {VARIABLE}, "the budget of the node is no secret"
    assert attempt.process.pid in [found.pid for found in processes.supervisors()]


def test_a_training_counts_in_the_budget_of_its_node(start: Any) -> None:
    attempt = start(**ENDLESS)
    attempt.until_step(1)
    budget = node_budget()
    planned = attempt.job.facts.planned
    free = budget.free_bytes()
    assert free is not None
    assert budget.total_bytes - free == (int(planned.memory_bytes.value) if planned else HOST_BYTES_PER_GPU_PROCESS)
    attempt.process.kill()
    attempt.process.wait()
    assert budget.free_bytes() is None


def test_a_job_is_cancelled_only_once_every_process_exited(start: Any, alice_user: Person) -> None:
    attempt = start(**ENDLESS, num_processes=2)
    attempt.until_step(3)
    members = attempt.processes()
    assert len(members) >= 3
    with db.transaction() as session:
        service.cancel(session, principal=alice_user.principal, job_id=attempt.job_id)
    notifications.notify_supervisor(attempt.job_id)
    until(lambda: attempt.job.state == "cancelled", 30, attempt.log())
    assert [p for p in members if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert [state for state, _ in factories.reasons(attempt.job_id)][-3:] == ["running", "cancelling", "cancelled"]
    with db.transaction() as session:  # what was learned is not thrown away
        steps = session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == attempt.job_id)).all()
    assert steps == [attempt.ended().step]


def test_a_trainer_that_does_not_stop_is_killed(
    start: Any, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATHANOR_STOP_SECONDS", "1")
    attempt = start(**ENDLESS)
    attempt.until_step(2)
    for process in attempt.processes():
        process.suspend()
    with db.transaction() as session:
        service.cancel(session, principal=alice_user.principal, job_id=attempt.job_id)
    notifications.notify_supervisor(attempt.job_id)
    assert attempt.ended(30).state == "cancelled"
    assert attempt.processes() == []


def test_a_text_with_too_few_tokens_fails_with_both_numbers(start: Any) -> None:
    given = {**SMALL, "sequence_length": 128, "vocab_size": None, "max_steps": 5}
    attempt = start(**given, text="In the beginning God created the heaven. " * 8)
    job = attempt.ended()
    assert (job.state, job.failure_code) == ("failed", "data_short"), attempt.log()
    assert job.failure["needed"] == 257
    assert 0 < job.failure["found"] < 257


def test_a_killed_rank_ends_the_attempt_and_the_job_is_retried(start: Any) -> None:
    attempt = start(**ENDLESS, num_processes=2)
    attempt.until_step(2)
    ranks = [p for p in attempt.processes() if p.parent() in attempt.processes()]
    ranks[-1].kill()
    job = attempt.ended()
    assert (job.state, job.no_progress) == ("recovering", 1), attempt.log()
    assert factories.reasons(job.id)[-1] == ("recovering", "trainer_killed")
    assert attempt.processes() == []


def test_a_node_shutdown_saves_its_job_and_releases_it(start: Any) -> None:
    attempt = start(**ENDLESS)
    attempt.until_step(2)
    processes.signal_all(processes.supervisors(), signal.SIGTERM)
    job = attempt.ended()
    assert (job.state, job.no_progress) == ("recovering", 0), attempt.log()
    assert factories.reasons(job.id)[-1] == ("recovering", "shutdown")
    with db.transaction() as session:
        assert session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == job.id)).all() == [job.step]
        assert job.id in dispatch.requeue_or_fail(session)
    assert factories.row(job.id).state == "queued"


def test_a_worker_stopped_with_its_container_saves_its_jobs_first(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = start(**ENDLESS)
    attempt.until_step(2)
    monkeypatch.setenv("ATHANOR_STOP_JOBS", "true")
    settings.cache_clear()
    Worker().stop()
    settings.cache_clear()
    assert factories.reasons(attempt.job_id)[-1] == ("recovering", "shutdown")
    assert [row.step for row in attempt.saved()] == [attempt.job.step]


def test_a_killed_supervisor_stops_its_trainer(start: Any) -> None:
    attempt = start(**ENDLESS)
    attempt.until_step(2)
    attempt.process.kill()
    attempt.until_gone()
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == attempt.job_id).values(lease_until=attempt.job.created_at))
        assert attempt.job_id in dispatch.expire_leases(session)


def test_a_superseded_supervisor_stops_its_trainer_and_writes_nothing(start: Any) -> None:
    attempt = start(**ENDLESS)
    attempt.until_step(2)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == attempt.job_id).values(fence=Job.fence + 1))
    attempt.process.wait(30)
    assert attempt.processes() == []
    step = attempt.job.step
    assert max(attempt.steps()) == step
    assert attempt.job.state == "running"  # what another attempt would hold


def test_training_continues_without_a_database_and_loses_no_point(start: Any, database: str) -> None:
    attempt = start(**{**SMALL, "max_steps": 700})
    attempt.until_step(2)
    pids = {process.pid for process in attempt.processes()}
    journal = RunDir(storage.run(attempt.job_id)).events_path(1)
    with outage(database):
        size = journal.stat().st_size
        until(lambda: journal.stat().st_size > size + 8_000, 30, "training without a database")
        assert {process.pid for process in attempt.processes()} <= pids
    job = attempt.ended(90)
    assert job.state == "succeeded", attempt.log()
    assert attempt.steps() == list(range(1, 701))
    assert job.fence == 1


class outage:
    """A database that takes no connection."""

    def __init__(self, url: str) -> None:
        self.name = url.split("/")[3].split("?")[0]
        self.other = url.replace(f"/{self.name}?", "/postgres?")

    def __enter__(self) -> None:
        db.engine().dispose()
        self._execute(f'ALTER DATABASE "{self.name}" ALLOW_CONNECTIONS false')
        self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'")

    def __exit__(self, *error: object) -> None:
        self._execute(f'ALTER DATABASE "{self.name}" ALLOW_CONNECTIONS true')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.other, autocommit=True) as connection:
            connection.execute(statement.encode())


def test_without_a_fork_server_a_job_starts_new_processes(start: Any, fork_server: ForkServer) -> None:
    fork_server.stop()
    try:
        attempt = start(**{**SMALL, "max_steps": 2})
        assert attempt.ended(120).state == "succeeded", attempt.log()
    finally:
        fork_server._process = None


def test_a_duplicate_message_starts_one_attempt(alice_user: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int]] = []
    monkeypatch.setattr(start_job, "start_supervisor", lambda job_id, fence: started.append((job_id, fence)))
    monkeypatch.setattr(start_job, "_children", [])
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    factories.give_to(job_id, settings().node_name)
    start_job.start_job(job_id)
    monkeypatch.setattr(start_job, "_children", [])
    start_job.start_job(job_id)
    assert started == [(job_id, 1)]
