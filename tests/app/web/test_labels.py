"""Name, tags and notes of what lists show: corpora with all their versions, base models and tokenizers."""

from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.core import db
from app.core.audit_models import AuditEntry
from app.core.model_base import new_id
from app.core.models import Corpus, ImportedModel
from app.corpora import service as corpora
from app.tokenizers import service as tokenizers
from tests.app.jobs import factories
from tests.users import Person

KINDS = ("corpora", "models", "tokenizers")


@pytest.fixture
def ids(alice_user: Person) -> dict[str, str]:
    """A row of Alice's in each list, by the list's place in addresses."""
    model = ImportedModel(owner_id=alice_user.id, name="before", source="upload", state="uploading")
    with db.transaction() as session:
        session.add(model)
        tokenizer = tokenizers.record_tokenizer(
            session, owner_id=alice_user.id, name="before", vocab_size=300, sha256=new_id().ljust(64, "0"), corpora=[]
        )
    return {
        "corpora": factories.corpus(alice_user, name="before"),
        "models": model.id,
        "tokenizers": tokenizer.id,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_name_tags_and_notes_are_changed_by_rest(alice: TestClient, ids: dict[str, str], kind: str) -> None:
    row = f"/api/v1/{kind}/{ids[kind]}"
    body = {"name": "  after  ", "tags": ["Verse", "verse", " old "], "notes": " why \n"}
    changed = alice.patch(row, json=body)
    assert changed.status_code == 200
    expected = {"name": "after", "tags": ["Verse", "old"], "notes": "why"}
    for answer in (changed.json(), alice.get(row).json()):
        assert {name: answer[name] for name in expected} == expected
    assert alice.patch(row, json={"notes": ""}).json()["tags"] == ["Verse", "old"]  # what is left out stays
    assert (alice.get(row).json()["name"], alice.get(row).json()["notes"]) == ("after", "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_has_what_is_stored_and_stores_what_is_sent(alice: TestClient, ids: dict[str, str], kind: str) -> None:
    page = f"/{kind}/{ids[kind]}"
    alice.patch(f"/api/v1{page}", json={"tags": ["verse", "old"], "notes": "why"})
    assert f'href="{page}/edit"' in alice.get(page).text
    form = alice.get(f"{page}/edit").text
    assert 'value="before"' in form
    assert 'value="verse, old"' in form
    assert "why</textarea>" in form
    sent = {"name": "by hand", "tags": "new，old", "notes": "why"}
    answer = alice.post(f"{page}/edit", data=sent, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    shown = alice.get(page).text
    assert "<h1>by hand</h1>" in shown
    assert f'href="/{kind}?tag=new"' in shown
    assert "why</p>" in shown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"name": " "}, "name_missing", "name"),
        ({"name": "x" * 121}, "name_too_long", "name"),
        ({"name": "a\u202eb"}, "character_invalid", "name"),
        ({"tags": ["x" * 41]}, "name_too_long", "tags"),
        ({"tags": [f"tag {n}" for n in range(21)]}, "tags_many", "tags"),
        ({"notes": "a\0b"}, "character_invalid", "notes"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_at_its_field_and_nothing_changes(
    alice: TestClient, ids: dict[str, str], kind: str, changes: dict[str, Any], code: str, field: str
) -> None:
    refused = alice.patch(f"/api/v1/{kind}/{ids[kind]}", json=changes)
    assert (refused.status_code, refused.json()["code"], refused.json()["errors"][0]["field"]) == (422, code, field)
    text = {name: ",".join(value) if name == "tags" else value for name, value in changes.items()}
    shown = alice.post(f"/{kind}/{ids[kind]}/edit", data={"name": "after", "notes": "kept text", **text})
    assert shown.status_code == 422
    _field, _space, sentence = refused.json()["errors"][0]["message"].partition(" ")
    assert sentence in shown.text  # where the label stands in place of the field's name
    assert "kept text" in shown.text or field == "notes"
    assert alice.get(f"/api/v1/{kind}/{ids[kind]}").json()["name"] == "before"


def test_a_tag_with_a_comma_is_refused(alice: TestClient, ids: dict[str, str]) -> None:
    refused = alice.patch(f"/api/v1/corpora/{ids['corpora']}", json={"tags": ["a,b"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "tag_comma")


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_searched_by_tags_and_notes_and_narrowed_to_a_tag(
    alice: TestClient, ids: dict[str, str], kind: str
) -> None:
    row_id, place = ids[kind], f"/api/v1/{kind}"
    alice.patch(f"{place}/{row_id}", json={"tags": [f"Psalm {row_id}", "poem"], "notes": f"from the 50% desk {row_id}"})

    def listed(**query: str) -> list[str]:
        return [row["id"] for row in alice.get(place, params=query).json()["data"]]

    assert listed(q=f"psalm {row_id}") == listed(q=f"50% DESK {row_id}") == [row_id]
    assert listed(q=f"50_ desk {row_id}") == []
    assert listed(tag=f"Psalm {row_id}") == [row_id]
    assert listed(tag="Psalm") == listed(tag=f"Psalm {row_id}", q="absent") == []
    page = alice.get(f"/{kind}", params={"tag": f"Psalm {row_id}"}).text
    assert f'href="/{kind}/{row_id}"' in page
    assert f'<option value="Psalm {row_id}" selected>' in page
    assert f'href="/{kind}/{row_id}"' not in alice.get(f"/{kind}", params={"tag": "absent"}).text


@pytest.mark.parametrize(("kind", "box"), [("corpora", "corpus"), ("models", "model"), ("tokenizers", "tokenizers")])
def test_several_rows_are_tagged_at_once(
    alice: TestClient, bob: TestClient, ids: dict[str, str], kind: str, box: str
) -> None:
    row = f"/api/v1/{kind}/{ids[kind]}"
    alice.patch(row, json={"tags": ["first"]})
    form = {box: [ids[kind], "absent"], "action": "tag", "new_tag": "second"}
    page = alice.post(f"/{kind}/bulk", data=form)
    assert page.status_code == 200
    assert "1 entry was tagged." in page.text
    assert alice.get(row).json()["tags"] == ["first", "second"]
    without = alice.post(f"/{kind}/bulk", data={**form, "new_tag": " "})
    assert (without.status_code, "Enter a tag." in without.text) == (422, True)
    assert bob.post(f"/{kind}/bulk", data=form).status_code == 422
    assert alice.get(row).json()["tags"] == ["first", "second"]


def test_all_versions_of_a_corpus_have_the_same_labels_and_no_other_corpus(
    alice: TestClient, alice_user: Person
) -> None:
    first, second, other = (factories.corpus(alice_user, name=name) for name in ("before", "before", "other"))
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == second).values(lineage_id=first, version=2))
    body = {"name": "after", "tags": ["verse"], "notes": "why"}
    assert alice.patch(f"/api/v1/corpora/{second}", json=body).status_code == 200
    rows = [alice.get(f"/api/v1/corpora/{corpus_id}").json() for corpus_id in (first, second, other)]
    assert [row["name"] for row in rows] == ["after", "after", "other"]
    assert [(row["tags"], row["notes"]) for row in rows] == [(["verse"], "why"), (["verse"], "why"), ([], "")]
    restored = alice.post(f"/api/v1/corpora/{first}/restore")  # makes a third version
    assert (restored.status_code, restored.json()["tags"], restored.json()["notes"]) == (201, ["verse"], "why")


def test_a_corpus_that_ships_is_not_changed(alice: TestClient) -> None:
    with db.transaction() as session:
        corpora.install_samples(session)
    refused = alice.patch("/api/v1/corpora/00smalltalk", json={"name": "mine"})
    assert (refused.status_code, refused.json()["code"]) == (403, "corpus_shipped")
    assert "/edit" not in alice.get("/corpora/00smalltalk").text
    assert alice.get("/corpora/00smalltalk/edit").status_code == 403
    assert "cannot be changed" in alice.post("/corpora/00smalltalk/edit", data={"name": "mine"}).text


@pytest.mark.parametrize("kind", [*KINDS, "jobs"])
def test_a_new_name_is_in_the_audit_log_and_the_same_one_is_not(
    alice: TestClient, alice_user: Person, ids: dict[str, str], kind: str
) -> None:
    factories.node()
    steps = {"max_steps": 9, "warmup_steps": 1}
    row_id = ids[kind] if kind in ids else factories.submitted(alice_user, ids["corpora"], name="before", **steps)
    row = f"/api/v1/{kind}/{row_id}"
    for changes in ({"name": "before"}, {"tags": ["a"]}, {"name": "after"}, {"name": "after"}):
        assert alice.patch(row, json=changes).status_code == 200
    alice.patch(row, json={"name": ""})
    with db.transaction() as session:
        entries = session.scalars(select(AuditEntry).where(AuditEntry.subject_id == row_id)).all()
    action = {"corpora": "corpus_renamed", "models": "model_renamed", "tokenizers": "tokenizer_renamed"}
    assert [(entry.action, entry.subject, entry.detail) for entry in entries] == [
        (action.get(kind, "job_renamed"), "after", "before")
    ]


def test_the_name_of_a_checkpoint_stands_wherever_it_is_listed_or_chosen(
    alice: TestClient, bob: TestClient, alice_user: Person, ids: dict[str, str]
) -> None:
    job_id, checkpoint_id = factories.finished(alice_user, ids["corpora"], name="rhymes")
    row = f"/api/v1/checkpoints/{checkpoint_id}"
    assert (alice.get(row).json()["name"], alice.get(row).json()["tags"]) == ("", [])
    sent = {"name": " first ode ", "tags": "verse", "notes": "keep this one"}
    answer = alice.post(f"/checkpoints/{checkpoint_id}/edit", data=sent, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/checkpoints/{checkpoint_id}")
    assert alice.get(row).json()["name"] == "first ode"
    pages = (
        f"/checkpoints/{checkpoint_id}",
        "/checkpoints?tag=verse",
        "/checkpoints?q=keep+this",
        f"/jobs/{job_id}",
        "/",
        "/jobs/new",
        "/playground",
        "/evaluations",
        "/playground/inspect",
        "/deployments",
        f"/tasks?subject={checkpoint_id}",
        f"/lineage/{checkpoint_id}",
    )
    assert [page for page in pages if "first ode" not in alice.get(page).text] == []
    assert "first ode" not in alice.get("/checkpoints?tag=absent").text
    assert [one["id"] for one in alice.get("/api/v1/checkpoints?q=first+ode&tag=verse").json()["data"]] == [
        checkpoint_id
    ]
    assert alice.get("/api/v1/checkpoints?tag=absent").json()["data"] == []
    tagged = alice.post("/api/v1/checkpoints/bulk", json={"action": "tag", "ids": [checkpoint_id], "tag": "ode"})
    assert (tagged.json()["num_changed"], alice.get(row).json()["tags"]) == (1, ["verse", "ode"])
    assert bob.patch(row, json={"name": "mine"}).status_code == 404
    assert alice.patch(row, json={"name": "x" * 81}).json()["code"] == "name_too_long"
    assert alice.patch(row, json={"name": " "}).json()["name"] == ""  # unlike other rows, it needs none
    assert "first ode" not in alice.get("/checkpoints").text
    with db.transaction() as session:
        entries = session.scalars(select(AuditEntry).where(AuditEntry.subject_id == checkpoint_id)).all()
    assert [(entry.action, entry.subject, entry.detail) for entry in entries] == [
        ("checkpoint_renamed", "first ode", ""),
        ("checkpoint_renamed", "", "first ode"),
    ]
