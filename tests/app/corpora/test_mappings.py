"""Mappings of columns that are saved under a name."""

import json
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.core import db, migrations
from app.core.json_shapes import CorpusMapping
from app.corpora import mappings
from tests.app.corpora.conftest import Upload
from tests.app.jobs import factories
from tests.background import run_waiting
from tests.users import Person

PATH = "/api/v1/column-mappings"
CONTENT = b"Frage;Antwort\nIs it hot?;Very.\n"
COLUMNS = {"prompt": "frage", "completion": "antwort"}


def saved(client: TestClient) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get(PATH).json()["data"]
    return rows


def parse(client: TestClient, corpus_id: str, **mapping: Any) -> Any:
    return client.post(f"/api/v1/corpora/{corpus_id}/parse", json={"mapping": mapping})


def test_a_saved_mapping_outlives_its_corpus_and_is_used_by_its_name(
    alice: TestClient, bob: TestClient, upload: Upload
) -> None:
    first = upload(alice, CONTENT, "one.csv")["id"]
    assert parse(alice, first, columns=COLUMNS, name=" Quiz ").status_code == 202
    run_waiting()
    assert alice.delete(f"/api/v1/corpora/{first}").status_code == 204
    second = upload(alice, CONTENT, "two.csv")["id"]
    assert parse(alice, second, name="Quiz").status_code == 202
    run_waiting()
    mapping = alice.get(f"/api/v1/corpora/{second}").json()["mapping"]
    assert mapping == {"name": "Quiz", "kind": "completion", "columns": COLUMNS}
    assert [row | {"id": "", "created_at": ""} for row in saved(alice)] == [mapping | {"id": "", "created_at": ""}]
    assert saved(bob) == []
    refused = parse(bob, upload(bob, CONTENT, "three.csv")["id"], name="Quiz")
    assert (refused.status_code, refused.json()["code"]) == (422, "mapping_unknown")


def test_a_name_stands_for_the_mapping_that_was_last_saved_under_it(alice: TestClient, upload: Upload) -> None:
    corpus_id = upload(alice, CONTENT, "one.csv")["id"]
    for columns in (COLUMNS, {"text": "antwort"}):
        assert parse(alice, corpus_id, columns=columns, name="Quiz").status_code == 202
        run_waiting()
    assert parse(alice, corpus_id, columns=COLUMNS).status_code == 202  # without a name nothing is saved
    assert [(row["name"], row["columns"]) for row in saved(alice)] == [("Quiz", {"text": "antwort"})]


def test_a_deleted_mapping_is_no_longer_offered(alice: TestClient, bob: TestClient, upload: Upload) -> None:
    corpus_id = upload(alice, CONTENT, "one.csv")["id"]
    for name in ("Quiz", "Exam"):
        assert parse(alice, corpus_id, columns=COLUMNS, name=name).status_code == 202
        run_waiting()
    ids = {row["name"]: row["id"] for row in saved(alice)}
    other = upload(alice, CONTENT, "two.csv")["id"]
    assert f"/corpora/{other}/mappings/{ids['Exam']}/delete" in alice.get(f"/corpora/{other}").text
    assert bob.delete(f"{PATH}/{ids['Exam']}").status_code == 404
    gone = alice.post(f"/corpora/{other}/mappings/{ids['Exam']}/delete")
    assert (gone.status_code, gone.headers["location"]) == (303, f"/corpora/{other}")
    assert [row["name"] for row in saved(alice)] == ["Quiz"]
    assert alice.delete(f"{PATH}/{ids['Quiz']}").status_code == 204
    assert (saved(alice), alice.get(f"/api/v1/corpora/{corpus_id}").json()["mapping"]["name"]) == ([], "Exam")


def test_a_user_saves_no_more_mappings_than_are_offered(
    alice: TestClient, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mappings, "MAX_MAPPINGS", 1)
    corpus_id = upload(alice, CONTENT, "one.csv")["id"]
    assert parse(alice, corpus_id, columns=COLUMNS, name="Quiz").status_code == 202
    run_waiting()
    refused = parse(alice, corpus_id, columns=COLUMNS, name="Exam")
    assert (refused.status_code, refused.json()["code"]) == (422, "mappings_many")
    assert alice.get(f"/api/v1/corpora/{corpus_id}").json()["state"] == "ready"
    assert parse(alice, corpus_id, columns={"text": "antwort"}, name="Quiz").status_code == 202


def test_mappings_of_earlier_versions_are_kept(alice: TestClient, alice_user: Person) -> None:
    rows = {"old": {"prompt": "a", "completion": "b"}, "new": {"text": "c"}}
    corpora = {name: factories.corpus(alice_user, name=name) for name in rows}
    migrations.downgrade("0059")
    for name, columns in rows.items():
        mapping = CorpusMapping(name="Old", kind="text", columns=columns)
        values = {"id": corpora[name], "progress": json.dumps({"mapping": mapping.model_dump(mode="json")})}
        with db.transaction() as session:  # without the class, whose columns are those of now
            session.execute(text("UPDATE corpus SET progress = CAST(:progress AS jsonb) WHERE id = :id"), values)
    migrations.upgrade()
    assert [row["columns"] for row in saved(alice) if row["name"] == "Old"] == [rows["new"]]
