"""Which jobs are forwarded to which trackers, and what pages, REST and the health page say of it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.jobs.forwarding.forwarder import forward_due
from app.jobs.forwarding.tracker_process import TrackerProcess
from tests.app.jobs import factories
from tests.app.jobs.forwarding.conftest import Configure, begin, row, train, training
from tests.users import Person

Start = Callable[..., TrackerProcess]


def test_without_a_tracker_nothing_is_forwarded_or_offered(alice_user: Person, alice: TestClient) -> None:
    job_id, _fence = training(alice_user, 1)
    begin()
    path = f"/api/v1/jobs/{job_id}/forwardings"
    assert alice.get(path).json() == {"data": [], "next": None}
    refused = alice.patch(path, json={"trackers": {"mlflow": True}})
    assert (refused.status_code, refused.json()["code"]) == (409, "tracker_unavailable")
    assert "Experiment trackers" not in alice.get(f"/jobs/{job_id}").text
    assert "Experiment tracker" not in alice.get("/health").text


def test_a_tracker_without_its_package_is_not_offered_and_the_health_page_says_how_to_install_it(
    alice_user: Person, alice: TestClient, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(wandb_base_url="http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "wandb", None)
    job_id, _fence = training(alice_user, 1)
    begin()
    assert alice.get(f"/api/v1/jobs/{job_id}/forwardings").json()["data"] == []
    assert alice.patch(f"/api/v1/jobs/{job_id}/forwardings", json={"trackers": {"wandb": True}}).status_code == 409
    assert "pip install &#39;.[wandb]&#39;" in alice.get("/health").text
    monkeypatch.delitem(sys.modules, "wandb")
    (answer,) = alice.get(f"/api/v1/jobs/{job_id}/forwardings").json()["data"]
    assert answer["state"] == "forwarding"


@pytest.mark.parametrize("name", ["mlflow_tracking_uri", "wandb_base_url", "swanlab_api_host"])
def test_user_and_password_of_an_address_are_not_shown(configure: Configure, name: str) -> None:
    tracker = configure(**{name: "https://clerk:open@sesame@tracker.example/base"})
    assert tracker.target == "https://tracker.example/base (athanor)"


def test_a_stopped_job_continues_where_it_was_and_another_directory_gets_all_of_it(
    alice_user: Person, alice: TestClient, configure: Configure, process: Start, tmp_path: Path
) -> None:
    tracker = configure(tensorboard_dir=str(tmp_path / "a"))
    job_id, fence = training(alice_user, 5)
    begin()
    sender = process(tracker)
    assert forward_due(tracker, sender) == 1
    path = f"/api/v1/jobs/{job_id}/forwardings"
    (answer,) = alice.patch(path, json={"trackers": {"tensorboard": False}}).json()["data"]
    assert (answer["state"], answer["step"]) == ("off", 5)
    train(job_id, fence, range(6, 9), first_seq=7)
    assert forward_due(tracker, sender) == 0
    begin()
    alice.patch(path, json={"trackers": {"tensorboard": True}})
    assert forward_due(tracker, sender) == 1
    (written,) = (tmp_path / "a").rglob("events.*")
    assert row(job_id, tracker).remote["num_bytes"] == written.stat().st_size
    other = configure(tensorboard_dir=str(tmp_path / "b"))
    assert forward_due(other, process(other)) == 1
    (again,) = (tmp_path / "b").rglob("events.*")
    assert again.read_bytes() == written.read_bytes()
    assert alice.get("/health").text.count("1 job is being forwarded to") == 1


def test_only_its_owner_chooses_for_a_job(
    alice_user: Person, bob: TestClient, configure: Configure, tmp_path: Path
) -> None:
    tracker = configure(tensorboard_dir=str(tmp_path))
    job_id = factories.submitted(alice_user, factories.corpus(alice_user), max_steps=4, warmup_steps=1)
    begin()
    answer = bob.patch(f"/api/v1/jobs/{job_id}/forwardings", json={"trackers": {"tensorboard": False}})
    assert (answer.status_code, row(job_id, tracker).is_enabled) == (404, True)
