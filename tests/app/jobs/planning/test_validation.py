"""What a submit is refused for before anything is queued: here, a disk that cannot hold its checkpoints."""

import shutil
from collections import namedtuple

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.core import db, disk
from app.core.formatting import file_size
from app.core.json_shapes import ParseReport
from app.core.models import Corpus, Job
from app.core.settings import settings
from tests.app.jobs import factories
from tests.users import Person

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node()
    return factories.corpus(alice_user)


def needed(api: TestClient, corpus: str) -> int:
    plan = api.post("/api/v1/jobs/plan", json={"corpora": [corpus]}).json()
    assert plan["resume_bytes"] == 8 * plan["num_parameters"]
    return 2 * (plan["checkpoint_bytes"] + plan["resume_bytes"]) + settings().disk_reserve_bytes


def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A disk with so many bytes left."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - free, free))


def test_a_disk_without_room_for_two_checkpoints_is_rejected_with_both_numbers(
    alice_api: TestClient, alice: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, needed(alice_api, corpus) - 1)
    answer = alice_api.post("/api/v1/jobs", json={"corpora": [corpus]})
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    size = file_size(needed(alice_api, corpus) - settings().disk_reserve_bytes)
    assert answer.json()["title"].startswith(f"Two checkpoints of this job need {size} of disk space, but only {size}")
    page = alice.post("/jobs", data={"recipe": "tiny", "corpora": corpus}, headers={"Origin": "http://localhost"})
    assert page.status_code == 507
    assert "Two checkpoints of this job need" in page.text
    leave(monkeypatch, 100 * 2**20)
    answer = alice_api.post("/api/v1/jobs", json={"corpora": [corpus]})
    assert (answer.status_code, "is full" in answer.json()["title"]) == (507, True)
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_exactly_enough_space_is_accepted(alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, needed(alice_api, corpus))
    assert alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}).status_code == 201


def test_the_free_space_is_that_of_the_data_directory(
    alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = shutil.disk_usage
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: asked.append(str(path)) or real(path))
    alice_api.post("/api/v1/jobs", json={"corpora": [corpus]})
    assert set(asked) == {str(settings().data.resolve())}


def labeled_corpus(owner: Person, labels: dict[str, int]) -> str:
    """A corpus of records with so many of each label."""
    corpus_id = factories.corpus(owner)
    with db.transaction() as session:
        row = session.get_one(Corpus, corpus_id)
        row.kind, row.num_documents = "classification", sum(labels.values())
        row.progress = ParseReport(labels=labels, num_labels=len(labels))
    return corpus_id


def test_a_classifier_with_one_label_is_rejected(alice_user: Person, alice_api: TestClient) -> None:
    one, other = labeled_corpus(alice_user, {"tea": 9}), labeled_corpus(alice_user, {"milk": 9})
    answer = alice_api.post("/api/v1/jobs/plan", json={"recipe": "classifier", "corpora": [one]})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "corpora")
    assert "All records have the label tea" in answer.text
    assert alice_api.post("/api/v1/jobs/plan", json={"recipe": "classifier", "corpora": [one, other]}).is_success
    beside = {
        "recipe": "classifier",
        "corpora": [one, other],
        "validation_corpora": [labeled_corpus(alice_user, {"rum": 2})],
    }
    answer = alice_api.post("/api/v1/jobs/plan", json=beside)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "validation_corpora")
    assert "The label rum of the corpus" in answer.text


def test_a_label_with_one_record_gives_a_note_at_submission(alice_user: Person, alice_api: TestClient) -> None:
    rare = labeled_corpus(alice_user, {"common": 191, "rare": 1})
    notes = alice_api.post("/api/v1/jobs/plan", json={"recipe": "classifier", "corpora": [rare]}).json()["notes"]
    assert [note for note in notes if "label" in note] == [
        "Only one record has the label rare, so it is trained on but not validated."
    ]


def test_one_record_needs_a_validation_corpus(alice_user: Person, alice_api: TestClient) -> None:
    single, other = factories.corpus(alice_user), factories.corpus(alice_user)
    with db.transaction() as session:
        for corpus_id in (single, other):
            session.get_one(Corpus, corpus_id).kind = "completion"
    body = {"recipe": "completion", "corpora": [single], "max_steps": 10}
    answer = alice_api.post("/api/v1/jobs/plan", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "records_few")
    assert alice_api.post("/api/v1/jobs/plan", json={**body, "validation_corpora": [other]}).is_success


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        ("chat", {}, "is of the kind “Conversations”, but this objective learns from “Text”, “Texts with labels”"),
        ("text", {"recipe": "chat"}, "is of the kind “Text”, but this objective learns from “Conversations”"),
        ("chat", {"recipe": "classifier"}, "but this objective learns from “Texts with labels”"),
    ],
)
def test_a_corpus_of_another_kind_is_refused(
    alice_user: Person, alice_api: TestClient, kind: str, fields: dict[str, str], sentence: str
) -> None:
    made = factories.corpus(alice_user)
    with db.transaction() as session:
        session.get_one(Corpus, made).kind = kind
    answer = alice_api.post("/api/v1/jobs", json={"corpora": [made], "name": "x", **fields})

    assert (answer.status_code, answer.json()["code"]) == (422, "kind_unfit")
    assert sentence in answer.json()["errors"][0]["message"]


def grouped(owner: Person, column: str | None, groups: dict[str, int]) -> str:
    """A corpus that was read with a column of groups."""
    corpus_id = factories.corpus(owner)
    with db.transaction() as session:
        report = ParseReport(group_column=column, groups=groups, num_groups=len(groups))
        session.get_one(Corpus, corpus_id).progress = report
    return corpus_id


@pytest.mark.parametrize(
    ("column", "groups", "split", "code"),
    [
        (None, {}, "group", "groups_missing"),
        ("by", {"ann": 3, "train": 1}, "column", "split_unnamed"),
        ("by", {"train": 3}, "column", "split_empty"),
        ("by", {"test": 3}, "column", "split_empty"),
        ("by", {"train": 3, "dev": 1}, "column", None),
        ("by", {"ann": 3}, "group", None),
    ],
)
def test_a_split_by_groups_needs_a_column_that_fits(
    alice_user: Person, alice_api: TestClient, column: str | None, groups: dict[str, int], split: str, code: str | None
) -> None:
    body = {"recipe": "tiny", "corpora": [grouped(alice_user, column, groups)], "split": split}
    answer = alice_api.post("/api/v1/jobs/plan", json=body)
    assert (answer.status_code, answer.json().get("code")) == (200 if code is None else 422, code)


def test_the_fraction_0_needs_a_validation_corpus(alice_user: Person, alice_api: TestClient) -> None:
    body = {"recipe": "tiny", "corpora": [factories.corpus(alice_user)], "validation_fraction": 0}
    answer = alice_api.post("/api/v1/jobs/plan", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "validation_fraction"
    assert "nothing would be left to evaluate the model on" in answer.json()["errors"][0]["message"]
    other = factories.corpus(alice_user)
    assert alice_api.post("/api/v1/jobs/plan", json={**body, "validation_corpora": [other]}).is_success
