"""Statistics of corpora by their routes and pages, counted by a background task."""

from typing import Any

from starlette.testclient import TestClient
from tokenizers import Tokenizer, models, pre_tokenizers

from app.core import db, storage
from app.corpora import statistics
from app.corpora.statistics import Bar, CorpusStatistics
from app.tokenizers import service as tokenizers_service
from tests.app.corpora.test_versions import joined, read
from tests.background import run_waiting
from tests.users import Person

DOCUMENTS = b"a b c\fa b\fa b c\fc c c c c c c c \xc3\xbc"  # 3, 2, 3 and 9 words


def word_tokenizer(owner: Person, name: str = "words") -> str:
    """A tokenizer of one token for each of three words, as a job leaves it."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    values = {"owner_id": owner.id, "name": name, "vocab_size": 4, "sha256": f"{name} {owner.id}", "corpora": []}
    with db.transaction() as session:
        tokenizer_id = tokenizers_service.record_tokenizer(session, **values).id
    path = storage.tokenizer(tokenizer_id)
    path.mkdir(parents=True, exist_ok=True)
    words.save(str(path / "tokenizer.json"))
    return tokenizer_id


def count(client: TestClient, corpus_id: str, tokenizer: str | None) -> Any:
    return client.post(f"/api/v1/corpora/{corpus_id}/statistics", json={"tokenizer": tokenizer})


def listed(client: TestClient, corpus_id: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = client.get(f"/api/v1/corpora/{corpus_id}/statistics").json()["data"]
    return data


def test_a_corpus_is_counted_once_per_text_and_tokenizer(alice: TestClient, alice_user: Person) -> None:
    corpus = joined(alice, {"a.txt": DOCUMENTS})
    tokenizer = word_tokenizer(alice_user)
    first = count(alice, corpus["id"], tokenizer)
    assert (first.status_code, first.json()["state"], first.json()["result"]) == (202, "queued", None)
    assert count(alice, corpus["id"], tokenizer).json()["task_id"] == first.json()["task_id"]
    assert run_waiting() == 1
    again = count(alice, corpus["id"], tokenizer).json()
    assert (again["task_id"], again["state"]) == (first.json()["task_id"], "succeeded")
    result = again["result"]
    assert (result["num_documents"], result["num_duplicates"], result["tokens"]["num_tokens"]) == (4, 1, 17)
    assert [row["tokenizer"] for row in listed(alice, corpus["id"])] == [tokenizer]
    task = alice.get(f"/api/v1/tasks/{again['task_id']}").json()
    assert (task["kind"], task["corpus_id"], task["state"]) == ("statistics", corpus["id"], "succeeded")

    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={})
    assert read(alice, corpus["id"])["state"] == "ready"
    assert listed(alice, corpus["id"]) != []  # the same text
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"encoding": "windows-1252"})
    read(alice, corpus["id"])
    assert listed(alice, corpus["id"]) == []


def test_a_corpus_is_read_again_while_it_is_counted(alice: TestClient) -> None:
    corpus = joined(alice, {"a.txt": DOCUMENTS})
    task_id = count(alice, corpus["id"], None).json()["task_id"]
    answer = alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"kind": "text"})
    assert answer.status_code == 202
    parsing = alice.get(f"/api/v1/corpora/{corpus['id']}").json()["task_id"]
    assert parsing not in (None, task_id)
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{corpus['id']}").json()["state"] == "ready"


def test_statistics_and_tokenizers_of_others_are_not_shown(
    alice: TestClient, bob: TestClient, alice_user: Person
) -> None:
    tokenizer = word_tokenizer(alice_user)
    corpus = joined(alice, {"a.txt": DOCUMENTS})
    assert bob.post(f"/api/v1/corpora/{corpus['id']}/statistics", json={}).status_code == 404
    assert bob.get(f"/api/v1/corpora/{corpus['id']}/search", params={"q": "a"}).status_code == 404
    refused = count(bob, joined(bob, {"a.txt": DOCUMENTS})["id"], tokenizer)
    assert (refused.status_code, refused.json()["code"]) == (422, "tokenizer_unknown")


def test_the_page_counts_and_shows_what_a_length_cuts(alice: TestClient, alice_user: Person) -> None:
    corpus = joined(alice, {"a.txt": DOCUMENTS})
    tokenizer = word_tokenizer(alice_user)
    address = f"/corpora/{corpus['id']}"
    assert "are counted when you ask for them" in alice.get(address).text
    answer = alice.post(f"{address}/statistics", data={"tokenizer": tokenizer}, follow_redirects=False)
    assert answer.headers["Location"] == f"{address}?tokenizer={tokenizer}#statistics"
    assert "data-busy" in alice.get(address, params={"part": "statistics"}).text
    run_waiting()
    page = alice.get(address).text
    assert "8 tokens is exceeded by 25.0 % of the documents; it would cut 5.9 % of the tokens." in page
    assert "Texts that occur more than once: 1" in page


def test_the_page_searches_and_continues(alice: TestClient) -> None:
    corpus = joined(alice, {"a.txt": b"\f".join([b"Some Fire."] * 25)})
    page = alice.get(f"/corpora/{corpus['id']}", params={"q": "FIRE"}).text
    assert page.count("<mark>Fire</mark>") == 20
    found = alice.get(f"/api/v1/corpora/{corpus['id']}/search", params={"q": "fire"}).json()
    assert f"at={found['next']}" in page
    rest = alice.get(f"/api/v1/corpora/{corpus['id']}/search", params={"q": "fire", "after": found["next"]}).json()
    assert ([match["index"] for match in rest["data"]], rest["next"]) == ([20, 21, 22, 23, 24], None)


def test_bars_of_lengths_begin_and_end_with_documents() -> None:
    tokens = {
        "stride": 1,
        "num_documents": 4,
        "num_stored_bytes": 40,
        "num_bytes": 40,
        "num_tokens": 17,
        "is_complete": False,
        "vocab_size": 4,
        "num_used_tokens": 3,
        "median_length": 3,
        "max_length": 9,
        "cuts": [
            {"length": 2, "num_longer": 4, "num_cut_tokens": 9},
            {"length": 4, "num_longer": 1, "num_cut_tokens": 5},
            {"length": 8, "num_longer": 1, "num_cut_tokens": 1},
            {"length": 16, "num_longer": 0, "num_cut_tokens": 0},
            {"length": 32, "num_longer": 0, "num_cut_tokens": 0},
        ],
        "frequent": [],
        "longest": [],
    }
    whole = {"num_documents": 40, "num_text_bytes": 400, "num_duplicates": 0, "num_repeated": 0}
    counted = CorpusStatistics.model_validate({**whole, "repeated": [], "longest": [], "tokens": tokens})
    assert counted.num_tokens == 170
    assert counted.tokens is not None
    assert statistics.length_bars(counted.tokens) == [
        Bar(4, 3, 0.25, 5 / 17),
        Bar(8, 0, 0.25, 1 / 17),
        Bar(16, 1, 0.0, 0.0),
    ]
