"""Jobs are forwarded to MLflow: a real store, read by MLflow's own client, whose import takes seconds."""

import importlib
import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.forwarding.clients import process as process_module
from app.jobs.forwarding.forwarder import forward_due
from app.jobs.forwarding.tracker_process import TrackerProcess
from app.jobs.forwarding.trackers import Tracker
from tests.app.jobs import factories
from tests.app.jobs.attempts.test_recoveries import begin as resume
from tests.app.jobs.attempts.test_recoveries import killed
from tests.app.jobs.forwarding.conftest import (
    Configure,
    begin,
    claim,
    curve,
    make_due,
    row,
    train,
    training,
    training_sent_twice,
)
from tests.users import Person
from trainer import events

Start = Callable[..., TrackerProcess]
TOKEN = "opensesame"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a database of MLflow, which takes a second to create."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracker(configure: Configure, store: str) -> Tracker:
    return configure(mlflow_tracking_uri=store, mlflow_experiment="Scribes")


def run_of(store: str, job_id: str) -> tuple[Any, Any]:
    """MLflow's client and the one run of a job."""
    client = importlib.import_module("mlflow").MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("Scribes").experiment_id])
    (run,) = [run for run in runs if run.data.tags["athanor.job_id"] == job_id]
    return client, run


def points(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_a_run_has_every_step_once_although_batches_and_steps_come_twice(
    alice_user: Person, tracker: Tracker, process: Start, store: str
) -> None:
    sender = process(tracker)
    job_id, fence = training_sent_twice(alice_user, tracker, sender)
    assert row(job_id, tracker).steps == {"loss": 12, "eval_loss": 12, "learning_rate": 12, "gpu_percent": 12}
    client, run = run_of(store, job_id)
    assert points(client, run, "train/loss") == curve(12)
    assert points(client, run, "eval/loss") == curve(12, every=4)
    assert [step for step, _value in points(client, run, "system/gpu_percent")] == [*range(1, 13)]
    assert client.get_metric_history(run.info.run_id, "train/loss")[0].timestamp == 1_000_001_000
    assert forward_due(tracker, sender) == 0
    # Another attempt resumes after step 10, trains two steps again and goes on to the end.
    fence = killed(job_id, fence)
    resume(job_id, fence, 10)
    train(job_id, fence, range(11, 21))
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    assert forward_due(tracker, sender) == 1
    client, run = run_of(store, job_id)
    assert points(client, run, "train/loss") == curve(20)
    assert points(client, run, "eval/loss") == curve(20, every=4)
    assert (run.info.status, run.info.run_name, run.data.tags["athanor.state"]) == ("FINISHED", "Scribe", "succeeded")
    assert (run.data.params["max_steps"], run.data.params["learning_rate"]) == ("40", "0.003")
    assert row(job_id, tracker).finished_at is not None
    assert forward_due(tracker, sender) == 0


def test_a_long_run_is_sent_in_batches_and_numbers_that_are_none_arrive(
    alice_user: Person, tracker: Tracker, process: Start, store: str
) -> None:
    job_id, fence = training(alice_user, 0)
    train(job_id, fence, range(1, 701))
    nan = events.PointsEvent(seq=2000, at=1_000_701.0, step=701, values={"loss": "nan"})
    factories.record(job_id, fence, [nan])
    begin()
    assert forward_due(tracker, process(tracker)) == 3  # of 2,276 points
    client, run = run_of(store, job_id)
    (*finite, last) = points(client, run, "train/loss")
    assert finite == curve(700)
    assert (last[0], math.isnan(last[1])) == (701, True)
    with db.transaction() as session:
        attempts.fail(session, job_id=job_id, fence=fence, code="nan_loss", values={"step": 701})
    make_due()
    assert forward_due(tracker, process(tracker)) == 1
    client, run = run_of(store, job_id)
    assert run.info.status == "FAILED"


def test_a_job_that_never_began_has_no_run(alice_user: Person, tracker: Tracker) -> None:
    job_id = factories.submitted(alice_user, factories.corpus(alice_user), max_steps=4, warmup_steps=1)
    begin()
    sender = TrackerProcess(tracker)
    assert forward_due(tracker, sender) == 0
    with db.transaction() as session:
        service.cancel(session, principal=alice_user.principal, job_id=job_id)
    assert factories.row(job_id).state == "cancelled"
    assert forward_due(tracker, sender) == 0
    assert row(job_id, tracker).finished_at is not None
    assert sender._child is None


def test_the_address_of_a_run_is_without_user_and_password(
    alice_user: Person, tracker: Tracker, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, _fence = training(alice_user, 2)
    begin()
    batch = claim(tracker, job_id).batch
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://clerk:open@sesame@tracker.example/base/")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "Scribes")
    mlflow_client = importlib.import_module("app.jobs.forwarding.clients.mlflow_client")
    monkeypatch.setattr(mlflow_client, "_client", lambda: mlflow_client.MlflowClient(store))
    answer = process_module.answer(mlflow_client, job=batch.job, rows=batch.rows, remote={}, is_over=False)
    _client, run = run_of(store, job_id)
    page = f"https://tracker.example/base/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert answer == {"remote": {"run_id": run.info.run_id, "url": page}}


class RefusingServer(ThreadingHTTPServer):
    """Answers every request with an error that repeats the credentials."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Refusal)
        self.credentials: list[str | None] = []


class Refusal(BaseHTTPRequestHandler):
    server: RefusingServer

    def do_GET(self) -> None:
        self.server.credentials.append(self.headers["Authorization"])
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": f"{TOKEN} may not"}).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


def test_a_server_that_refuses_loses_nothing_and_its_error_is_shown_without_secrets(
    alice_user: Person, alice: TestClient, bob: TestClient, configure: Configure
) -> None:
    server = RefusingServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tracker = configure(mlflow_tracking_uri=f"http://127.0.0.1:{server.server_port}", mlflow_token=TOKEN)
    job_id, _fence = training(alice_user, 5)
    begin()
    sender = TrackerProcess(tracker)
    assert forward_due(tracker, sender) == 1
    assert forward_due(tracker, sender) == 0  # the next try comes after a pause
    sender.close()
    server.shutdown()
    server.server_close()
    assert server.credentials == [f"Bearer {TOKEN}"]
    stored = row(job_id, tracker)
    assert (stored.fence, stored.seq, stored.num_failures, stored.forwarded_at) == (0, 0, 1, None)
    (answer,) = alice.get(f"/api/v1/jobs/{job_id}/forwardings").json()["data"]
    assert answer["error"] == "PERMISSION_DENIED: *** may not"
    texts = [alice.get(f"/jobs/{job_id}").text, alice.get("/health").text]
    assert [("PERMISSION_DENIED: *** may not" in text, TOKEN in text) for text in texts] == [(True, False)] * 2
    seen_by_member = bob.get("/health").text
    assert "1 job could not be forwarded to" in seen_by_member
    assert "PERMISSION_DENIED" not in seen_by_member
