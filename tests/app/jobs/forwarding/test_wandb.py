"""Jobs are forwarded to Weights & Biases: its own library, against a server on loopback that speaks its protocol."""

import base64
import json
from collections.abc import Callable, Iterator

import pytest

from app.core import db
from app.core.json_shapes import FailureReason
from app.jobs.attempts import attempts
from app.jobs.forwarding.forwarder import forward_due
from app.jobs.forwarding.tracker_process import TrackerProcess
from app.jobs.forwarding.trackers import Tracker
from tests.app.jobs.forwarding.conftest import (
    Configure,
    curve,
    make_due,
    row,
    train,
    training_sent_twice,
)
from tests.app.jobs.forwarding.wandb_server import WandbServer
from tests.users import Person

Start = Callable[..., TrackerProcess]
KEY = "0123456789" * 4


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    running = WandbServer()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def tracker(configure: Configure, server: WandbServer) -> Tracker:
    return configure(wandb_base_url=server.url, wandb_project="scribes", wandb_api_key=KEY)


def points(server: WandbServer, run: str, name: str) -> list[tuple[int, float]]:
    """The steps and values of a metric, in the order of W&B's own steps, which have no gap."""
    rows = server.rows(run)
    assert [each["_step"] for each in rows] == [*range(len(rows))]
    return [(each["train/global_step"], each[name]) for each in rows if name in each]


def test_a_run_has_every_step_once_whatever_is_lost_in_between(
    alice_user: Person, tracker: Tracker, process: Start, server: WandbServer
) -> None:
    sender = process(tracker)
    job_id, fence = training_sent_twice(alice_user, tracker, sender)
    assert points(server, job_id, "train/loss") == curve(12)
    assert job_id not in server.exit_codes
    # The server loses rows, which is seen at the next batch.
    del server.histories[job_id][10:]
    train(job_id, fence, range(13, 17), first_seq=16)
    make_due()
    assert forward_due(tracker, sender) == 1
    assert row(job_id, tracker).error == FailureReason(code="wandb_rows_lost", values={"rows": 10, "num_rows": 15})
    make_due()
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    assert forward_due(tracker, sender) == 1
    assert points(server, job_id, "train/loss") == curve(16)
    assert points(server, job_id, "eval/loss") == curve(16, every=4)
    assert server.rows(job_id)[0]["_timestamp"] == 1_000_001
    assert server.exit_codes[job_id] == 0
    described = server.descriptions[job_id]
    assert (described["displayName"], described["project"]) == ("Scribe", "scribes")
    assert json.loads(described["config"])["max_steps"] == {"value": 40}
    assert server.credentials == {"Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()}
    assert (row(job_id, tracker).error, row(job_id, tracker).finished_at is not None) == (None, True)
