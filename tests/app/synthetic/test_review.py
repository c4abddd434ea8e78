"""The review of records through the API, and the corpora that the accepted ones make."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import storage
from app.corpora import previews
from tests.app.synthetic.conftest import Generate, records, state
from tests.app.synthetic.teacher import Teacher, completion
from tests.background import run_waiting

START = "/api/v1/record-generations"


@pytest.fixture
def written(teacher: Teacher, generate: Generate) -> dict[str, Any]:
    """Three records of one document, of which the last is almost the second."""
    long = "the alchemist fed the fire with charcoal by the handful until it fed itself again"
    answers = [{"question": "Why?", "answer": text} for text in ("Because.", long, f"{long} today")]
    teacher.script(completion(json.dumps({"records": answers})))
    return generate(num_documents=1)


def change(client: TestClient, generation: dict[str, Any], draft: dict[str, Any], **body: Any) -> Any:
    return client.put(f"{START}/{generation['id']}/records/{draft['id']}", json=body)


def review(client: TestClient, generation: dict[str, Any], **body: Any) -> dict[str, int]:
    answer = client.post(f"{START}/{generation['id']}/review", json=body)
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json()
    return counts


def test_records_are_accepted_edited_and_rejected(alice: TestClient, written: dict[str, Any]) -> None:
    first, second, third = records(alice, written["id"])
    assert change(alice, written, first, state="accepted").json()["is_edited"] is False
    edited = change(alice, written, second, cells=[" Why not?\r\n", "It is so."], state="accepted").json()
    assert (edited["cells"], edited["is_edited"]) == (["Why not?", "It is so."], True)
    change(alice, written, third, state="rejected")
    counts = state(alice, written["id"])["records"]
    assert counts == {"draft": 0, "accepted": 2, "rejected": 1, "duplicates": 1}
    accepted = records(alice, written["id"], state="accepted")
    assert [row["id"] for row in accepted] == [first["id"], second["id"]]


@pytest.mark.parametrize("cells", [["Why?"], ["Why?", ""], ["Why?", " \n"], ["a", "b", "c"], ["Why?", "a\x00"]])
def test_a_record_keeps_its_number_of_texts(alice: TestClient, written: dict[str, Any], cells: list[str]) -> None:
    first = records(alice, written["id"])[0]
    answer = change(alice, written, first, cells=cells)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cells")
    assert records(alice, written["id"])[0] == first


def test_all_undecided_records_are_accepted_but_near_duplicates(alice: TestClient, written: dict[str, Any]) -> None:
    first, second, third = records(alice, written["id"])
    change(alice, written, first, state="rejected")
    assert review(alice, written, state="accepted") == {"draft": 1, "accepted": 1, "rejected": 1, "duplicates": 1}
    assert records(alice, written["id"], state="draft")[0]["id"] == third["id"]
    assert review(alice, written, state="accepted", duplicates=True)["accepted"] == 2
    assert review(alice, written, state="draft", ids=[second["id"]])["draft"] == 1


def test_lists_have_pages(alice: TestClient, written: dict[str, Any]) -> None:
    address = f"{START}/{written['id']}/records"
    page = alice.get(address, params={"limit": 2}).json()
    rest = alice.get(address, params={"limit": 2, "after": page["next"]}).json()
    assert [row["id"] for row in (*page["data"], *rest["data"])] == [row["id"] for row in records(alice, written["id"])]
    assert rest["next"] is None


def test_records_of_another_user_are_not_found(alice: TestClient, bob: TestClient, written: dict[str, Any]) -> None:
    first = records(alice, written["id"])[0]
    assert change(bob, written, first, state="accepted").status_code == 404
    assert bob.post(f"{START}/{written['id']}/review", json={"state": "accepted"}).status_code == 404
    assert state(alice, written["id"])["records"]["accepted"] == 0


def test_accepted_records_make_a_corpus_with_its_lineage(
    alice: TestClient, written: dict[str, Any], corpus: dict[str, Any], teacher: Teacher
) -> None:
    nothing = alice.post(f"{START}/{written['id']}/corpus", json={})
    assert (nothing.status_code, nothing.json()["code"]) == (409, "records_none")
    first, second, _third = records(alice, written["id"])
    review(alice, written, state="accepted", ids=[first["id"]])
    change(alice, written, second, cells=["Why not?", "It is so."], state="accepted")
    made = alice.post(f"{START}/{written['id']}/corpus", json={"name": "Reasons"})
    assert made.status_code == 201, made.text
    run_waiting()
    parsed = alice.get(f"/api/v1/corpora/{made.json()['id']}").json()
    assert (parsed["state"], parsed["name"], parsed["kind"], parsed["num_documents"]) == ("ready", "Reasons", "chat", 2)
    messages = [json.loads(document.text)["messages"] for document in previews.documents(parsed["id"], 0, 9)]
    assert messages[1] == [{"role": "user", "content": "Why not?"}, {"role": "assistant", "content": "It is so."}]
    lineage = alice.get(f"/api/v1/corpora/{parsed['id']}/synthesis").json()
    assert (lineage["generation_id"], lineage["parent_id"]) == (written["id"], corpus["id"])
    assert (lineage["model"], lineage["endpoint"]) == ("teacher · large", teacher.url)
    assert (lineage["num_records"], lineage["num_edited"]) == (2, 1)
    assert "{document}" in lineage["template"]
    assert alice.get(f"/api/v1/corpora/{corpus['id']}/synthesis").json()["code"] == "not_generated"


def test_a_new_version_has_the_records_too(alice: TestClient, written: dict[str, Any]) -> None:
    mine = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n'
    base = alice.post("/api/v1/corpora", params={"filename": "by-hand.jsonl"}, content=mine).json()
    address, body = f"{START}/{written['id']}/corpus", {"corpus": base["id"]}
    review(alice, written, state="accepted")
    assert alice.post(address, json=body).json()["code"] == "corpus_parsing"
    run_waiting()
    made = alice.post(address, json=body).json()
    run_waiting()
    parsed = alice.get(f"/api/v1/corpora/{made['id']}").json()
    assert (parsed["state"], parsed["version"], parsed["num_documents"]) == ("ready", 2, 3)
    assert (parsed["lineage_id"], parsed["name"]) == (base["lineage_id"], "by-hand")
    files = alice.get(f"/api/v1/corpora/{made['id']}/files").json()["data"]
    assert [file["filename"] for file in files] == ["by-hand.jsonl", f"generated-{written['id']}.jsonl"]
    review(alice, written, state="accepted", duplicates=True)
    again = alice.post(address, json={"corpus": made["id"]}).json()  # replaces its earlier file
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{again['id']}").json()["num_documents"] == 4


def test_records_of_another_kind_do_not_fit(
    alice: TestClient, bob: TestClient, written: dict[str, Any], corpus: dict[str, Any]
) -> None:
    review(alice, written, state="accepted")
    before = sorted(path.name for path in (storage.data() / "corpora").iterdir())
    address = f"{START}/{written['id']}/corpus"
    assert alice.post(address, json={"corpus": corpus["id"]}).json()["code"] == "kind_unfit"
    foreign = bob.post("/api/v1/corpora", params={"filename": "his.txt"}, content=b"His.").json()["id"]
    refused = alice.post(address, json={"corpus": foreign}).json()
    assert (refused["code"], refused["errors"][0]["field"]) == ("corpus_unknown", "corpus")
    assert sorted(path.name for path in (storage.data() / "corpora").iterdir()) == sorted([*before, foreign])


def test_texts_make_a_corpus_of_text(alice: TestClient, teacher: Teacher, generate: Generate) -> None:
    teacher.script(completion("A clearer text."))
    generation = generate(kind="text", records_per_document=1, num_documents=1)
    review(alice, generation, state="accepted")
    made = alice.post(f"{START}/{generation['id']}/corpus", json={}).json()
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{made['id']}").json()["kind"] == "text"
    assert [document.text for document in previews.documents(made["id"], 0, 9)] == ["A clearer text."]
