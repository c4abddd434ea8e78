"""Several rows at once by REST: each is changed by itself, and the answer says what became of it."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.jobs import factories
from tests.app.web.test_bulk import model, saved, tokenizer, using
from tests.users import Person

KINDS = ("corpora", "models", "tokenizers", "checkpoints", "jobs")


def row(owner: Person, kind: str, name: str = "row") -> str:
    """A row of a user's that can be deleted."""
    makers: dict[str, Any] = {
        "corpora": lambda: factories.corpus(owner, name=name),
        "models": lambda: model(owner, name, 1),
        "tokenizers": lambda: tokenizer(owner, name, 1),
        "checkpoints": lambda: saved(owner, name, 1),
    }
    row_id: str = makers[kind]()
    return row_id


def change(api: TestClient, kind: str, ids: list[str], action: str, **fields: Any) -> dict[str, Any]:
    answer = api.post(f"/api/v1/{kind}/bulk", json={"ids": ids, "action": action, **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("kind", ["corpora", "models", "tokenizers", "checkpoints"])
def test_rows_are_deleted_each_by_itself_and_others_stay(
    alice_api: TestClient, alice_user: Person, bob_user: Person, kind: str
) -> None:
    first, second, foreign = row(alice_user, kind), row(alice_user, kind), row(bob_user, kind)
    answer = change(alice_api, kind, [first, foreign, "absent", second, first], "delete")
    assert (answer["action"], answer["num_changed"]) == ("delete", 2)
    assert [(one["id"], one["is_changed"], one["code"]) for one in answer["data"]] == [
        (first, True, None),
        (foreign, False, "not_found"),
        ("absent", False, "not_found"),
        (second, True, None),
    ]
    trashed = {one["id"] for one in alice_api.get("/api/v1/trash", params={"limit": 200}).json()["data"]}
    assert {first, second} <= trashed
    again = change(alice_api, kind, [first], "delete")
    assert [(one["is_changed"], one["code"]) for one in again["data"]] == [(False, "in_trash")]
    assert again["data"][0]["message"]


def test_what_is_in_use_stays_and_says_why(alice_api: TestClient, alice_user: Person) -> None:
    used, free = row(alice_user, "corpora"), row(alice_user, "corpora")
    using(alice_user, "reader", corpora=[used])
    answer = change(alice_api, "corpora", [used, free], "delete")
    assert [(one["id"], one["is_changed"], one["code"]) for one in answer["data"]] == [
        (used, False, "corpus_in_use"),
        (free, True, None),
    ]
    assert "reader" in answer["data"][0]["message"]
    assert alice_api.get(f"/api/v1/corpora/{used}").status_code == 200


@pytest.mark.parametrize("kind", ["corpora", "models", "tokenizers"])
def test_rows_are_tagged(alice_api: TestClient, alice_user: Person, kind: str) -> None:
    ids = [row(alice_user, kind), row(alice_user, kind)]
    alice_api.patch(f"/api/v1/{kind}/{ids[0]}", json={"tags": [f"tag {n}" for n in range(20)]})
    answer = change(alice_api, kind, ids, "tag", tag=" verse ")
    assert [(one["is_changed"], one["code"]) for one in answer["data"]] == [(False, "tags_many"), (True, None)]
    assert alice_api.get(f"/api/v1/{kind}/{ids[1]}").json()["tags"] == ["verse"]


def test_checkpoints_are_pinned_and_unpinned(alice_api: TestClient, alice_user: Person) -> None:
    ids = [row(alice_user, "checkpoints"), row(alice_user, "checkpoints")]
    for action, is_pinned in (("pin", True), ("unpin", False)):
        assert change(alice_api, "checkpoints", ids, action)["num_changed"] == 2
        assert [alice_api.get(f"/api/v1/checkpoints/{one}").json()["pinned"] for one in ids] == [is_pinned] * 2


def test_jobs_are_tagged_cancelled_and_deleted(alice_api: TestClient, bob_api: TestClient, alice_user: Person) -> None:
    factories.node()
    corpus = factories.corpus(alice_user)
    ids = [
        factories.submitted(alice_user, corpus, name=name, max_steps=9, warmup_steps=1) for name in ("first", "second")
    ]
    assert change(alice_api, "jobs", ids, "tag", tag="night")["num_changed"] == 2
    assert [alice_api.get(f"/api/v1/jobs/{one}").json()["tags"] for one in ids] == [["night"]] * 2
    open_ones = change(alice_api, "jobs", ids, "delete")
    assert [one["code"] for one in open_ones["data"]] == ["job_open", "job_open"]
    assert change(bob_api, "jobs", ids, "cancel")["num_changed"] == 0
    assert change(alice_api, "jobs", ids, "cancel")["num_changed"] == 2
    assert {alice_api.get(f"/api/v1/jobs/{one}").json()["state"] for one in ids} == {"cancelled"}
    assert change(alice_api, "jobs", ids, "delete")["num_changed"] == 2
    assert alice_api.get(f"/api/v1/jobs/{ids[0]}").json()["code"] == "in_trash"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ids": [], "action": "delete"}, "ids"),
        ({"ids": [f"row {n}" for n in range(101)], "action": "delete"}, "ids"),
        ({"ids": ["x" * 65], "action": "delete"}, "ids.0"),
        ({"ids": ["absent"], "action": "rename"}, "action"),
        ({"ids": ["absent"]}, "action"),
        ({"ids": ["absent"], "action": "delete", "everything": True}, "everything"),
    ],
    ids=["none", "many", "long", "unknown", "without", "extra"],
)
def test_a_wrong_request_is_refused_at_its_field(
    alice_api: TestClient, kind: str, body: dict[str, Any], field: str
) -> None:
    refused = alice_api.post(f"/api/v1/{kind}/bulk", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize("kind", ["corpora", "models", "tokenizers", "jobs"])
def test_tagging_needs_a_tag(alice_api: TestClient, kind: str) -> None:
    refused = alice_api.post(f"/api/v1/{kind}/bulk", json={"ids": ["absent"], "action": "tag", "tag": " "})
    assert (refused.status_code, refused.json()["code"]) == (422, "tag_missing")
    assert refused.json()["errors"][0]["field"] == "tag"


def test_a_hundred_rows_are_changed_in_one_request(alice_api: TestClient) -> None:
    answer = change(alice_api, "corpora", [f"row{n}" for n in range(100)], "delete")
    assert (answer["num_changed"], len(answer["data"])) == (0, 100)
