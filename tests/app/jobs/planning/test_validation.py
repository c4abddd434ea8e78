"""What a submit is refused for before anything is queued: here, a disk that cannot hold its checkpoints."""

import shutil
from collections import namedtuple

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Corpus, Job
from app.core.settings import settings
from app.jobs.planning import validation
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
    monkeypatch.setattr(validation.shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - free, free))


def test_a_disk_without_room_for_two_checkpoints_refuses_the_job_with_both_numbers(
    alice_api: TestClient, alice: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(monkeypatch, needed(alice_api, corpus) - 1)
    assert alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}).status_code == 507
    leave(monkeypatch, 100 * 2**20)
    answer = alice_api.post("/api/v1/jobs", json={"corpora": [corpus]})
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert "100.0 MiB free" in answer.json()["title"]
    assert "need 1.0 GiB" in answer.json()["title"]
    page = alice.post("/jobs", data={"recipe": "tiny", "corpora": corpus}, headers={"Origin": "http://localhost"})
    assert page.status_code == 507
    assert "two checkpoints" in page.text
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_exactly_enough_is_enough(alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, needed(alice_api, corpus))
    assert alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}).status_code == 201


def test_the_disk_that_counts_is_that_of_the_data_directory(
    alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = shutil.disk_usage
    monkeypatch.setattr(validation.shutil, "disk_usage", lambda path: asked.append(str(path)) or real(path))
    alice_api.post("/api/v1/jobs", json={"corpora": [corpus]})
    assert asked == [str(settings().data.resolve())]


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        ("chat", {}, "is of the kind chat, but the objective causal needs text, classification"),
        ("text", {"recipe": "chat"}, "is of the kind text, but the objective chat needs chat"),
        ("chat", {"recipe": "classifier"}, "but the objective classification needs classification"),
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
