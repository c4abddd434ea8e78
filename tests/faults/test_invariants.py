"""Each invariant fails for a job that violates it: one that ended well, with one thing changed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.rows import dict_row
from starlette.testclient import TestClient

from app.core import db, storage
from app.jobs.attempts import attempts
from tests.app.jobs import factories, saved_checkpoints
from tests.faults import invariants
from tests.faults.runs import Run
from tests.faults.stack import CANARY
from tests.users import Person
from tests.waiting import until

pytestmark = pytest.mark.faults_core

STEPS, SAVE_STEPS = 6, 3
TOKEN = "a-token-of-alice"
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class InProcessInstallation:
    """What invariants read of an installation: database, files and responses. The API runs in this process."""

    def __init__(self, address: str, client: TestClient) -> None:
        self.address, self.client = address, client
        self.home = self.data = storage.data()
        self.responses: list[tuple[str, int, str]] = [("/jobs", 200, ""), ("/jobs", 503, "2")]
        self.token = TOKEN

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.address, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def change(self, statement: str, *values: Any) -> None:
        """Execute a statement that changes at least one row."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            assert connection.execute(statement.encode(), values).rowcount

    def get(self, path: str) -> Any:
        return self.client.get(path)


@pytest.fixture
def run(database: str, alice_api: TestClient, alice_user: Person) -> Run:
    """A job that has ended well: two checkpoints, a loss for each step."""
    corpus = factories.corpus(alice_user)
    factories.node()
    fields = {"max_steps": STEPS, "save_steps": SAVE_STEPS, "warmup_steps": 1}
    job_id, fence = factories.started(alice_user, corpus, **fields)
    factories.record(job_id, fence, factories.losses([4.0] * STEPS))
    for step in range(SAVE_STEPS, STEPS + 1, SAVE_STEPS):
        saved_checkpoints.recorded(job_id, step, fence)
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    installation: Any = InProcessInstallation(database, alice_api)
    return Run.of_job(installation, alice_api.get(f"/api/v1/jobs/{job_id}").json())


@pytest.fixture
def installation(run: Run) -> InProcessInstallation:
    """The installation of the run."""
    installation: Any = run.stack
    assert isinstance(installation, InProcessInstallation)
    return installation


@contextmanager
def process_of(run: Run, **environment: str) -> Iterator[None]:
    """A process that writes into the run's log, as a rank does."""
    with run.dir.log_path.open("ab") as log:
        process = subprocess.Popen(SLEEP, stdout=log, env={"PATH": os.defpath, **environment})
    try:
        until(psutil.Process(process.pid).environ, 10, "its environment")  # empty while the program is being loaded
        yield
    finally:
        process.kill()
        process.wait()


def violates(name: str, run: Run, **options: Any) -> None:
    """Check that `invariants.check` fails for the invariant of this name."""
    with pytest.raises(AssertionError, match=rf"^{name}\b"):
        invariants.check(run, **options)


def test_a_healthy_job_violates_no_invariant(run: Run) -> None:
    invariants.check(run, run.weights())


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM metric_point WHERE job_id = %s AND step = 4",
        "DELETE FROM metric_point WHERE job_id = %s AND step = 6",
        "UPDATE metric_point SET archived = true WHERE job_id = %s AND step = 1",
        "INSERT INTO metric_point SELECT job_id, series, step, 9, seq, value FROM metric_point"
        " WHERE job_id = %s AND step = 2",
    ],
)
def test_i1_a_missing_or_duplicate_point(run: Run, installation: InProcessInstallation, change: str) -> None:
    installation.change(change, run.id)
    violates("I1", run)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE job_event SET fence = fence + 1 WHERE job_id = %s AND to_state = 'succeeded'",
        "UPDATE job_event SET fence = 0 WHERE job_id = %s",
        "INSERT INTO job_event SELECT job_id, seq + 9, at, actor, 'queued', 'starting', fence + 1, reason, data"
        " FROM job_event WHERE job_id = %s AND to_state = 'starting'",
    ],
)
def test_i2_a_fence_that_skips_or_repeats_a_number_or_a_second_claim(
    run: Run, installation: InProcessInstallation, change: str
) -> None:
    if change.startswith("INSERT"):
        installation.change("DELETE FROM job_event WHERE job_id = %s AND to_state = 'succeeded'", run.id)
    installation.change(change, run.id)
    violates("I2", run)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE job_event SET actor = 'user' WHERE job_id = %s AND to_state = 'succeeded'",
        "UPDATE job_event SET from_state = 'paused' WHERE job_id = %s AND to_state = 'succeeded'",
        "INSERT INTO job_event SELECT job_id, seq + 1, at, actor, 'succeeded', 'running', fence, reason, data"
        " FROM job_event WHERE job_id = %s AND to_state = 'succeeded'",
    ],
)
def test_i3_a_transition_that_is_not_in_the_table(run: Run, installation: InProcessInstallation, change: str) -> None:
    installation.change(change, run.id)
    with pytest.raises((AssertionError, KeyError)):
        invariants.moves_are_in_the_table(run)


def test_i4_different_weights(run: Run) -> None:
    violates("I4", run, golden="0" * 64)


def damage(run: Run) -> None:
    path = run.dir.checkpoint_path(STEPS, 1) / "model.safetensors"
    path.write_bytes(bytes(64))


def copy_without_row(run: Run) -> None:
    saved_checkpoints.on_disk(run.id, SAVE_STEPS + 1, 1)


def only_say_deleted(run: Run) -> None:
    installation: Any = run.stack
    installation.change("UPDATE checkpoint SET state = 'deleted' WHERE job_id = %s AND step = %s", run.id, SAVE_STEPS)


@pytest.mark.parametrize("change", [damage, copy_without_row, only_say_deleted])
def test_i5_a_checkpoint_that_is_damaged_or_has_no_row_or_is_not_deleted(
    run: Run, change: Callable[[Run], None]
) -> None:
    change(run)
    with pytest.raises((AssertionError, ValueError, OSError)):
        invariants.checkpoints_are_complete(run)


def test_i5_allows_a_directory_of_an_attempt_that_was_superseded(run: Run) -> None:
    saved_checkpoints.on_disk(run.id, SAVE_STEPS + 1, 0)
    invariants.checkpoints_are_complete(run)


def test_i6_a_leftover_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "EXIT_SECONDS", 0.2)
    with process_of(run):
        violates("I6", run)
    invariants.check(run)


def test_i7_more_repeated_steps_than_between_two_checkpoints(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def repeat(steps: int) -> None:
        reached = {"fence": 1, "reached_step": 20, "resume_step": None}
        resumed = {"fence": 2, "reached_step": 30, "resume_step": 20 - steps}
        monkeypatch.setattr(run, "attempts", lambda: [reached, resumed])

    repeat(SAVE_STEPS + 2)
    violates("I7", run)
    invariants.check(run, intervals=2)
    repeat(SAVE_STEPS + 1)
    invariants.few_steps_are_repeated(run)


@pytest.mark.parametrize("answer", [("/jobs", 500, ""), ("/jobs", 503, ""), ("/jobs", 502, "2")])
def test_i8_a_bare_error(run: Run, installation: InProcessInstallation, answer: tuple[str, int, str]) -> None:
    installation.responses.append(answer)
    violates("I8", run)


@pytest.mark.parametrize(
    "sentence",
    ["", "no capital letter.", "No end", "A {gap}.", "Node ? was lost.", "Traceback (most recent call last)."],
)
def test_i9_a_cause_that_is_not_a_sentence(run: Run, monkeypatch: pytest.MonkeyPatch, sentence: str) -> None:
    monkeypatch.setattr(run, "history", lambda: [{"reason": "node_lost", "message": sentence}])
    violates("I9", run)
    monkeypatch.undo()
    job = {**run.job(), "failure": {"cause": "Something happened.", "next_step": sentence}}
    monkeypatch.setattr(run, "job", lambda: job)
    violates("I9", run)


@pytest.mark.parametrize("secret", [CANARY, TOKEN])
@pytest.mark.parametrize("place", ["logs/web.log", "runs/{run}/supervisor.log", "runs/{run}/attempts/1/inputs.json"])
def test_i10_a_secret_in_a_file(run: Run, installation: InProcessInstallation, secret: str, place: str) -> None:
    path: Path = installation.data / place.format(run=run.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"url": f"postgresql://postgres:{secret}@127.0.0.1/athanor"}))
    try:
        violates("I10", run)
    finally:
        path.unlink()


def test_i10_the_password_in_the_history(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [*run.history(), {"reason": None, "message": f"Cannot reach {CANARY}."}]
    monkeypatch.setattr(run, "history", lambda: history)
    violates("I10", run)


@pytest.mark.parametrize("variable", [{"ATHANOR_DATA": "x"}, {"DATABASE_URL": "x"}, {"ANY": CANARY}])
def test_i10_a_setting_in_a_trainers_environment(run: Run, variable: dict[str, str]) -> None:
    with process_of(run):
        assert all(isinstance(process, psutil.Process) for process in run.gang())
        invariants.trainers_have_no_secrets(run)
    with process_of(run, **variable), pytest.raises(AssertionError, match="I10"):
        invariants.trainers_have_no_secrets(run)
