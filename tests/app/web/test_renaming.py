"""Renaming what lists show: corpora with all their versions, base models and tokenizers."""

import re

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db
from app.core.model_base import new_id
from app.core.models import Corpus, ImportedModel
from app.corpora import service as corpora
from app.tokenizers import service as tokenizers
from tests.app.jobs import factories
from tests.users import Person


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


@pytest.mark.parametrize("kind", ["corpora", "models", "tokenizers"])
def test_a_name_is_changed_by_rest_and_on_the_page(alice: TestClient, ids: dict[str, str], kind: str) -> None:
    row = f"/api/v1/{kind}/{ids[kind]}"
    changed = alice.patch(row, json={"name": "  after  "})
    assert (changed.status_code, changed.json()["name"], alice.get(row).json()["name"]) == (200, "after", "after")
    page = f"/{kind}/{ids[kind]}"
    assert f'action="{page}/rename"' in alice.get(page).text
    answer = alice.post(f"{page}/rename", data={"name": "by hand"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    assert "<h1>by hand</h1>" in alice.get(page).text


@pytest.mark.parametrize("kind", ["corpora", "models", "tokenizers"])
@pytest.mark.parametrize(
    ("name", "code"), [(" ", "name_missing"), ("x" * 121, "name_too_long"), ("a\u202eb", "character_invalid")]
)
def test_a_bad_name_is_refused_and_nothing_changes(
    alice: TestClient, ids: dict[str, str], kind: str, name: str, code: str
) -> None:
    refused = alice.patch(f"/api/v1/{kind}/{ids[kind]}", json={"name": name})
    assert (refused.status_code, refused.json()["code"], refused.json()["errors"][0]["field"]) == (422, code, "name")
    shown = alice.post(f"/{kind}/{ids[kind]}/rename", data={"name": name})
    assert shown.status_code == 422
    assert refused.json()["errors"][0]["message"] in shown.text
    assert alice.get(f"/api/v1/{kind}/{ids[kind]}").json()["name"] == "before"


def test_all_versions_of_a_corpus_are_renamed_and_no_other_corpus(alice: TestClient, alice_user: Person) -> None:
    first, second, other = (factories.corpus(alice_user, name=name) for name in ("before", "before", "other"))
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == second).values(lineage_id=first, version=2))
    assert alice.patch(f"/api/v1/corpora/{second}", json={"name": "after"}).status_code == 200
    names = [alice.get(f"/api/v1/corpora/{corpus_id}").json()["name"] for corpus_id in (first, second, other)]
    assert names == ["after", "after", "other"]


def test_a_corpus_that_ships_is_not_renamed(alice: TestClient) -> None:
    with db.transaction() as session:
        corpora.install_samples(session)
    refused = alice.patch("/api/v1/corpora/00smalltalk", json={"name": "mine"})
    assert (refused.status_code, refused.json()["code"]) == (403, "corpus_shipped")
    assert not re.search(r'data-dialog="rename"', alice.get("/corpora/00smalltalk").text)
    assert "cannot be changed" in alice.post("/corpora/00smalltalk/rename", data={"name": "mine"}).text
