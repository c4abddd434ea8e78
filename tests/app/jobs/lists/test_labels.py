"""Names, tags and notes of jobs; lists that are searched and sorted by them; changes of many jobs at once."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.jobs import factories
from tests.users import Person
from trainer import events


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node()
    return factories.corpus(alice_user)


def labeled(client: TestClient, owner: Person, corpus: str, **labels: Any) -> str:
    job_id = factories.submitted(owner, corpus)
    assert client.patch(f"/api/v1/jobs/{job_id}", json=labels).status_code == 200
    return job_id


def names(client: TestClient, **query: Any) -> list[str]:
    jobs: list[str] = []
    after = None
    while True:
        answer = client.get("/api/v1/jobs", params={"limit": 2, **query, **({"after": after} if after else {})}).json()
        jobs += [job["name"] for job in answer["data"]]
        if (after := answer["next"]) is None:
            return jobs


def test_labels_are_normalized_and_stay_apart_from_the_spec(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id = factories.submitted(alice_user, corpus, name="as submitted")
    labels = {"name": " Run  A ", "tags": ["Base", "base ", "", "旧"], "notes": "\nlower rate\n"}
    job = alice_api.patch(f"/api/v1/jobs/{job_id}", json=labels).json()
    assert (job["name"], job["tags"], job["notes"]) == ("Run  A", ["Base", "旧"], "lower rate")
    assert job["spec"]["name"] == "as submitted"
    again = alice_api.patch(f"/api/v1/jobs/{job_id}", json={"tags": []}).json()
    assert (again["name"], again["tags"]) == ("Run  A", [])


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "a" * 81}, "name"),
        ({"tags": ["a,b"]}, "tags"),
        ({"tags": ["a" * 41]}, "tags"),
        ({"tags": [str(n) for n in range(21)]}, "tags"),
        ({"notes": "a\u0000b"}, "notes"),
        ({"notes": "a" * 10_001}, "notes"),
        ({"state": "failed"}, "state"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_labels_are_refused_at_their_field(
    alice_api: TestClient, alice_user: Person, corpus: str, labels: dict[str, Any], field: str
) -> None:
    job_id = factories.submitted(alice_user, corpus)
    answer = alice_api.patch(f"/api/v1/jobs/{job_id}", json=labels)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_labels_of_others_cannot_be_changed(bob_api: TestClient, alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    assert bob_api.patch(f"/api/v1/jobs/{job_id}", json={"name": "mine"}).status_code == 404


def test_lists_are_searched_and_filtered(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    labeled(alice_api, alice_user, corpus, name="Needle 100%", tags=["hay"])
    labeled(alice_api, alice_user, corpus, name="other", tags=["Stack"], notes="with a NEEDLE")
    assert names(alice_api, q="needle") == ["other", "Needle 100%"]
    assert names(alice_api, q="100%") == ["Needle 100%"]
    assert names(alice_api, q="1_0") == []
    assert names(alice_api, q="stac") == ["other"]
    assert names(alice_api, q='["hay"]') == []
    assert names(alice_api, tag="hay") == ["Needle 100%"]
    assert names(alice_api, tag="ha") == []


def test_pages_of_every_order_hold_each_job_once(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    losses = {"c": 3.0, "A": None, "b": 2.0, "a": 3.0}
    for name, loss in losses.items():
        job_id, fence = factories.started(alice_user, corpus)
        alice_api.patch(f"/api/v1/jobs/{job_id}", json={"name": name, "tags": ["sorted"]})
        if loss is not None:
            point = events.PointsEvent(seq=1, at=1000.0, step=1, values={"eval_loss": loss})
            factories.record(job_id, fence, [point])
    assert names(alice_api, tag="sorted") == ["a", "b", "A", "c"]
    assert names(alice_api, tag="sorted", order="oldest") == ["c", "A", "b", "a"]
    assert names(alice_api, tag="sorted", order="name") == ["A", "a", "b", "c"]
    assert names(alice_api, tag="sorted", order="eval_loss") == ["b", "c", "a", "A"]
    assert alice_api.get("/api/v1/jobs", params={"order": "size"}).status_code == 422


def test_many_jobs_are_tagged_and_cancelled_at_once(
    alice: TestClient, alice_api: TestClient, alice_user: Person, bob_user: Person, corpus: str
) -> None:
    mine = [labeled(alice_api, alice_user, corpus, name=f"mine {n}") for n in range(2)]
    ended, _checkpoint = factories.finished(alice_user, corpus, name="ended", max_steps=3, warmup_steps=1)
    hers = factories.submitted(bob_user, factories.corpus(bob_user))
    tagged = alice.post("/jobs/bulk", data={"job": [*mine, hers], "action": "tag", "new_tag": "both"})
    assert "2 entries were tagged." in tagged.text
    assert names(alice_api, tag="both") == ["mine 1", "mine 0"]
    cancelled = alice.post("/jobs/bulk", data={"job": [*mine, ended], "action": "cancel"})
    assert "Jobs that are being cancelled: 2." in cancelled.text
    assert "ended: This job has ended" in cancelled.text
    assert {factories.row(job_id).state for job_id in mine} == {"cancelled"}
    assert factories.row(hers).state == "queued"
    refused = alice.post("/jobs/bulk", data={"action": "delete"})
    assert (refused.status_code, "Choose at least one entry of the list." in refused.text) == (422, True)


def test_the_form_of_labels_keeps_what_was_entered(alice: TestClient, alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus, name="before")
    assert 'value="before"' in alice.get(f"/jobs/{job_id}/edit").text
    refused = alice.post(f"/jobs/{job_id}/edit", data={"name": "", "tags": "a, b", "notes": "why"})
    assert (refused.status_code, 'value="a, b"' in refused.text, "Enter a name." in refused.text) == (422, True, True)
    alice.post(f"/jobs/{job_id}/edit", data={"name": "after", "tags": "a, b，c", "notes": "why"})
    page = alice.get(f"/jobs/{job_id}").text
    assert (factories.row(job_id).name, factories.row(job_id).tags) == ("after", ["a", "b", "c"])
    assert all(part in page for part in ("after", "/jobs?tag=b", "why"))
