"""Jobs are forwarded to SwanLab: a server on loopback that takes only what its library was recorded to send."""

from collections.abc import Callable, Iterator

import pytest

from app.core import db
from app.jobs.attempts import attempts
from app.jobs.forwarding.forwarder import forward_due
from app.jobs.forwarding.tracker_errors import explain
from app.jobs.forwarding.tracker_process import TrackerProcess
from app.jobs.forwarding.trackers import Tracker
from tests.app.jobs import factories
from tests.app.jobs.forwarding.conftest import Configure, begin, curve, make_due, row, train, training
from tests.app.jobs.forwarding.swanlab_server import SwanLabServer
from tests.users import Person
from trainer import events

Start = Callable[..., TrackerProcess]


@pytest.fixture(scope="module")
def server() -> Iterator[SwanLabServer]:
    running = SwanLabServer()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def tracker(configure: Configure, server: SwanLabServer) -> Tracker:
    return configure(swanlab_api_host=server.url, swanlab_project="scribes", swanlab_api_key="opensesame")


def test_an_experiment_has_every_step_once_although_an_answer_is_lost(
    alice_user: Person, tracker: Tracker, process: Start, server: SwanLabServer
) -> None:
    job_id, fence = training(alice_user, 5)
    begin()
    sender = process(tracker)
    server.drops_answers = True
    assert forward_due(tracker, sender) == 1
    assert error_of(job_id, tracker) == 'SwanLab answered 502 to /api/house/metrics: "gateway"'
    server.drops_answers = False
    train(job_id, fence, range(6, 13), first_seq=7)
    make_due()
    assert forward_due(tracker, sender) == 1
    train(job_id, fence, range(13, 17), first_seq=16)
    infinite = events.PointsEvent(seq=30, at=1_000_017.0, step=17, values={"loss": "inf"})
    factories.record(job_id, fence, [infinite])
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    make_due()
    assert forward_due(tracker, sender) == 1
    assert server.curve(job_id, "train/loss") == [*curve(16), (17, "nan")]
    assert server.curve(job_id, "eval/loss") == curve(16, every=4)
    assert sorted(server.series) == ["eval/loss", "system/gpu_percent", "train/learning_rate", "train/loss"]
    assert server.points[job_id][0]["create_time"] == "1970-01-12T13:46:41Z"
    assert (server.state, server.experiment["name"], server.config["max_steps"]["value"]) == ("FINISHED", "Scribe", 40)
    assert (row(job_id, tracker).error, row(job_id, tracker).finished_at is not None) == (None, True)


def test_a_key_that_swanlab_does_not_know_is_an_error_without_the_key(
    alice_user: Person, configure: Configure, server: SwanLabServer
) -> None:
    tracker = configure(swanlab_api_host=server.url, swanlab_api_key="sesame")
    job_id, _fence = training(alice_user, 5)
    begin()
    assert forward_due(tracker, TrackerProcess(tracker)) == 1
    assert error_of(job_id, tracker) == "SwanLab answered 401 to /api/login/api_key: {}"


def error_of(job_id: str, tracker: Tracker) -> str:
    error = row(job_id, tracker).error
    assert error is not None
    return explain(error)
