"""What a failed job offers, and the end of its log."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db, storage
from app.jobs.attempts import attempts
from tests.app.jobs import factories
from tests.users import Person
from trainer.run_dir import RunDir

DIVERGED = {"series": "loss", "value": "nan", "step": 30}


def failed(owner: Person, code: str, values: dict[str, Any], *, saved: bool, **given: Any) -> str:
    """Create a job that failed with a code; returns its ID."""
    job_id, fence = factories.started(owner, factories.corpus(owner), **given)
    if saved:
        factories.saved(job_id, fence, 20)
    with db.transaction() as session:
        attempts.fail(session, job_id=job_id, fence=fence, code=code, values=values)
    return job_id


def actions(client: TestClient, job_id: str) -> dict[str, dict[str, Any]]:
    failure = client.get(f"/api/v1/jobs/{job_id}").json()["failure"]
    return {action["id"]: action for action in failure["actions"]}


def test_a_diverged_job_offers_gentler_settings(alice_api: TestClient, alice_user: Person) -> None:
    job_id = failed(alice_user, "nan_loss", DIVERGED, saved=True)
    offered = actions(alice_api, job_id)
    assert list(offered) == ["half_learning_rate", "another_order", "resubmit"]
    assert offered["half_learning_rate"]["given"]["learning_rate"] == 0.0015
    assert (
        offered["another_order"]["given"]["seed"] == alice_api.get(f"/api/v1/jobs/{job_id}").json()["spec"]["seed"] + 1
    )
    for action in offered.values():
        answer = alice_api.post("/api/v1/jobs", json=action["given"])
        assert answer.status_code == 201, answer.text
        page = alice_api.get(action["form"])
        assert page.status_code in (200, 303)


@pytest.mark.parametrize(
    ("code", "values", "saved", "ids"),
    [
        ("nan_loss", DIVERGED, False, ["resubmit"]),
        ("oom_gpu", {"step": 1}, False, ["gradient_checkpointing", "resubmit"]),
        ("trainer_bug", {}, True, ["continue", "resubmit"]),
        ("data_changed", {"found": "a", "needed": "b"}, True, ["resubmit"]),
        ("vocab_too_large", {"asked": 60_000, "largest": 15_016}, False, ["resubmit"]),
    ],
)
def test_each_failure_offers_suitable_actions(
    alice_api: TestClient, alice_user: Person, code: str, values: dict[str, Any], saved: bool, ids: list[str]
) -> None:
    given = {"per_device_batch_size": 1} if code == "oom_gpu" else {}
    assert list(actions(alice_api, failed(alice_user, code, values, saved=saved, **given))) == ids


def test_gradient_checkpointing_is_offered_and_prefilled(
    alice_api: TestClient, alice: TestClient, alice_user: Person
) -> None:
    job_id = failed(alice_user, "oom_gpu", {"step": 1}, saved=False, per_device_batch_size=1)
    offered = actions(alice_api, job_id)["gradient_checkpointing"]
    assert (offered["given"]["gradient_checkpointing"], offered["given"]["per_device_batch_size"]) == (True, 1)
    assert '<option value="true" selected' in alice.get(offered["form"]).text


def test_a_failed_job_shows_the_last_lines_of_its_log(alice_api: TestClient, alice_user: Person) -> None:
    job_id = failed(alice_user, "trainer_bug", {}, saved=False)
    assert alice_api.get(f"/api/v1/jobs/{job_id}").json()["failure"]["log"] == []
    path = RunDir(storage.run(job_id)).log_path
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"line {n}\n" for n in range(20_000)) + "ValueError: no")
    log = alice_api.get(f"/api/v1/jobs/{job_id}").json()["failure"]["log"]
    assert log == [*(f"line {n}" for n in range(19_981, 20_000)), "ValueError: no"]
    (listed,) = [row for row in alice_api.get("/api/v1/jobs").json()["data"] if row["id"] == job_id]
    assert (listed["failure"]["log"], listed["failure"]["actions"]) == ([], [])
