"""What a plan says of records that are cut and of duplicates, from stored statistics and from earlier jobs."""

from pathlib import Path
from typing import Any

from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db
from app.core.json_shapes import JobFacts
from app.core.models import Corpus, Job
from app.corpora.statistics import LengthCut, TokenStatistics, longer_than
from tests.app.corpora.test_statistics import count, word_tokenizer
from tests.app.corpora.test_versions import joined
from tests.app.jobs import factories
from tests.background import run_waiting
from tests.users import Person

CASES = Path(__file__).parents[3] / "fixtures/cases/data"
CHAT = {"recipe": "tiny", "objective": "chat", "max_steps": 5, "warmup_steps": 0}


def case(client: TestClient, name: str) -> str:
    corpus = joined(client, {name: (CASES / name).read_bytes()})
    assert corpus["state"] == "ready"
    return str(corpus["id"])


def planned(client: TestClient, corpus: str, **fields: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/jobs/plan", json={**CHAT, "corpora": [corpus], **fields})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def test_what_was_not_counted_is_named_and_not_counted_for_the_plan(alice: TestClient) -> None:
    corpus = case(alice, "D12-long.jsonl")
    (check,) = planned(alice, corpus)["corpora"]
    assert (check["num_longer"], check["num_duplicates"], check["num_near_duplicates"]) == (None, None, None)
    assert check["sentences"] == [
        "Not counted yet: records that are cut, copies, near duplicates. Count them on the page of the corpus."
    ]
    assert run_waiting() == 0


def test_records_that_the_sequence_length_cuts_are_said_before(alice: TestClient, alice_user: Person) -> None:
    corpus = case(alice, "D12-long.jsonl")
    tokenizer = word_tokenizer(alice_user)
    count(alice, corpus, tokenizer)
    assert run_waiting() == 1
    (check,) = planned(alice, corpus, sequence_length=64)["corpora"]
    assert check["num_longer"] > 0
    assert (check["tokenizer"], check["is_estimated"]) == ("words", True)  # the job trains one of its own
    assert f"≈ {check['num_longer']} record" in check["sentences"][0]
    (short,) = planned(alice, corpus, sequence_length=131_072)["corpora"]
    assert short["num_longer"] == 0
    page = alice.post("/jobs/plan", data={"recipe": "chat", "corpora": corpus, "sequence_length": "64"}).text
    assert "longer than 64 tokens, counted with the tokenizer “words”" in page
    assert f'href="/corpora/{corpus}#statistics"' in page


def test_duplicates_are_said_with_the_way_to_remove_them(alice: TestClient) -> None:
    corpus = case(alice, "D21-duplicates.jsonl")
    count(alice, corpus, None)
    assert run_waiting() == 1
    (check,) = planned(alice, corpus)["corpora"]
    assert check["num_duplicates"] > 0
    assert check["num_near_duplicates"] is not None
    assert any("copies of others" in sentence for sentence in check["sentences"])
    page = alice.post("/jobs/plan", data={"recipe": "chat", "corpora": corpus}).text
    assert f'href="/corpora/{corpus}#clean"' in page


def test_of_texts_nothing_is_cut(alice: TestClient) -> None:
    corpus = joined(alice, {"a.txt": b"In the beginning God created the heaven and the earth.\n" * 200})["id"]
    (check,) = planned(alice, corpus, objective="causal", recipe="tiny")["corpora"]
    assert "records" not in check["sentences"][0]


def test_an_earlier_job_has_counted_exactly(alice: TestClient, alice_user: Person) -> None:
    corpus = case(alice, "D12-long.jsonl")
    job_id = factories.submitted(alice_user, corpus, **CHAT)
    with db.transaction() as session:
        facts = JobFacts(num_tokens=1000, num_cut=7, num_dropped=1)
        session.execute(update(Job).where(Job.id == job_id).values(facts=facts))
    data = planned(alice, corpus)
    assert (data["num_cut"], data["num_dropped"]) == (7, 1)
    assert data["sentences"] == [
        "At this sequence length 7 records are cut and 1 record is left out, as counted before."
    ]
    assert planned(alice, corpus, sequence_length=48)["num_cut"] is None


def test_statistics_of_others_are_not_used(alice: TestClient, bob: TestClient) -> None:
    shared = joined(alice, {"a.txt": b"In the beginning God created the heaven and the earth.\n" * 200})["id"]
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == shared).values(owner_id=None))  # as those that are shipped
    count(bob, shared, None)
    assert run_waiting() == 1
    mine, theirs = (
        client.post("/api/v1/jobs/plan", json={"corpora": [shared]}).json()["data"]["corpora"][0]
        for client in (alice, bob)
    )
    assert mine["num_duplicates"] is None
    assert theirs["num_duplicates"] is not None


def test_between_two_lengths_it_is_interpolated() -> None:
    cuts = [LengthCut(length=8, num_longer=60, num_cut_tokens=0), LengthCut(length=16, num_longer=20, num_cut_tokens=0)]
    empty = {"stride": 1, "num_stored_bytes": 1, "num_bytes": 1, "num_tokens": 1, "vocab_size": 1, "max_length": 20}
    tokens = TokenStatistics(
        **empty,
        num_documents=100,
        is_complete=True,
        num_used_tokens=1,
        median_length=9,
        cuts=cuts,
        frequent=[],
        longest=[],
    )
    assert longer_than(tokens, 8) == (0.6, True)
    assert longer_than(tokens, 12) == (0.4, False)
    assert longer_than(tokens, 16) == (0.2, True)
    assert longer_than(tokens, 99) == (0.2, False)
