"""The pages of jobs as a browser without scripts gets them."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from app import db
from app.models import Corpus, Job
from tests.people import Person

FORM = {"key": "0123456789abcdef", "recipe": "tiny"}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    """A corpus of Alice's that has been read."""
    with db.transaction() as session:
        row = Corpus(
            owner_id=alice_user.id,
            name="<b>fables</b>",
            filename="fables.txt",
            format="txt",
            state="ready",
            num_bytes=90_000,
            sha256="0" * 64,
            num_documents=12,
            num_characters=90_000,
            num_text_bytes=90_000,
        )
        session.add(row)
        session.flush()
        return row.id


def submit(client: TestClient, corpus: str, **fields: Any) -> Any:
    return client.post("/jobs", data={**FORM, "corpora": corpus, **fields})


@pytest.fixture
def job_id(alice: TestClient, corpus: str) -> str:
    """A queued job of Alice's."""
    answer = submit(alice, corpus, key="k" * 16, name="<i>one</i>", max_steps="7", warmup_steps="0")
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).rpartition("/")[2]


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/new", "/jobs/06e9x0c5m1n2p3q4", "/nodes", "/api/docs"])
def test_a_visitor_is_sent_to_log_in(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")


def test_the_overview_begins_with_three_steps(bob: TestClient) -> None:
    assert "Three steps from text to a model of your own." in bob.get("/").text


def test_the_form_offers_recipes_corpora_and_every_field_of_a_spec(alice: TestClient, corpus: str) -> None:
    text = alice.get(f"/jobs/new?corpus={corpus}&recipe=gpt2-124m").text
    assert f'value="{corpus}" checked' in text
    assert re.search(r'value="gpt2-124m" checked', text)
    assert "&lt;b&gt;fables&lt;/b&gt;" in text
    assert "<b>fables</b>" not in text
    for name in ("max_steps", "vocab_size", "zero_stage", "tie_word_embeddings", "sample_prompt", "tokenizer"):
        assert f'name="{name}"' in text
    assert 'placeholder="19073"' in text  # what the recipe says stands where nothing is typed


def test_a_form_becomes_a_job_and_sent_twice_the_same_job(alice: TestClient, corpus: str) -> None:
    first = submit(alice, corpus, max_steps="9", warmup_steps="2")
    again = submit(alice, corpus, max_steps="9", warmup_steps="2")
    changed = submit(alice, corpus, max_steps="8", warmup_steps="2")
    assert first.status_code == 303
    assert again.headers["location"] == first.headers["location"] != changed.headers["location"]
    with db.transaction() as session:
        job = session.get(Job, first.headers["location"].rpartition("/")[2])
        assert job is not None
        assert (job.max_steps, job.spec["learning_rate"], job.spec["corpora"]) == (9, 0.003, [corpus])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_steps": "0"}, "Steps must be at least 1"),
        ({"max_steps": "many"}, "Steps must be a whole number"),
        ({"learning_rate": "-1"}, "Learning rate must be greater than 0"),
        ({"hidden_size": "130"}, "Hidden size must be a multiple of num_attention_heads (4), but is 130"),
        ({"corpora": ""}, "There is no corpus"),
        ({"corpora": "06e9x0c5m1n2p3q4"}, "There is no corpus 06e9x0c5m1n2p3q4, or it is not yours."),
        ({"sequence_length": "131072"}, "sequence length of at most"),
        ({"vocab_size": "250000"}, "Ask for at most"),
        ({"tokenizer": "06e9x0c5m1n2p3q4"}, "There is no tokenizer"),
        ({"name": "x" * 81}, "Name must be at most 80 characters long"),
        ({"name": "a\0b"}, "character that cannot be stored"),
    ],
)
def test_what_is_wrong_stands_at_its_field_and_nothing_typed_is_lost(
    alice: TestClient, corpus: str, fields: dict[str, str], sentence: str
) -> None:
    answer = submit(alice, corpus, **{"sample_prompt": "Once upon a time", **fields})
    assert answer.status_code == 422
    assert sentence in answer.text
    assert "Once upon a time" in answer.text
    name, value = next(iter(fields.items()))
    if name not in ("corpora", "tokenizer") and "\0" not in value:
        assert re.search(rf'name="{name}"[^>]*|value="{value}"', answer.text)
        assert f'id="field-{name}-error"' in answer.text


def test_a_job_without_a_corpus_says_so_at_the_corpora(alice: TestClient) -> None:
    answer = alice.post("/jobs", data=FORM)
    assert answer.status_code == 422
    assert "Corpora is missing" in answer.text


def test_the_page_of_a_job_is_useful_before_any_script(alice: TestClient, job_id: str) -> None:
    text = alice.get(f"/jobs/{job_id}").text
    assert "&lt;i&gt;one&lt;/i&gt;" in text
    assert "<i>one</i>" not in text
    assert "Waiting for" in text
    assert "Submitted." in text
    assert "0.003" in text
    assert f'action="/jobs/{job_id}/cancel"' in text


def test_lists_show_a_job_under_its_state(alice: TestClient, job_id: str) -> None:
    assert f"/jobs/{job_id}" in alice.get("/jobs").text
    assert f"/jobs/{job_id}" in alice.get("/jobs?show=active").text
    assert f"/jobs/{job_id}" not in alice.get("/jobs?show=ended").text
    assert f"/jobs/{job_id}" in alice.get("/").text


@pytest.mark.parametrize("method", ["get", "post"])
def test_another_cannot_see_or_cancel_a_job(bob: TestClient, job_id: str, method: str) -> None:
    path = f"/jobs/{job_id}" if method == "get" else f"/jobs/{job_id}/cancel"
    assert getattr(bob, method)(path).status_code == 404
    assert f"/jobs/{job_id}" not in bob.get("/jobs").text


def test_cancelling_leads_back_to_the_page_even_when_it_is_too_late(alice: TestClient, corpus: str) -> None:
    job_id = submit(alice, corpus, key="c" * 16).headers["location"].rpartition("/")[2]
    for _time in range(2):
        answer = alice.post(f"/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job_id}")
    text = alice.get(f"/jobs/{job_id}").text
    assert 'data-state="cancelled"' in text
    assert "data-cancel" not in text


def test_pages_speak_chinese(alice: TestClient, job_id: str) -> None:
    chinese = {"Accept-Language": "zh-CN"}
    assert "训练损失" in alice.get(f"/jobs/{job_id}", headers=chinese).text
    assert "学习率" in alice.get("/jobs/new", headers=chinese).text
    answer = alice.post("/jobs", data={**FORM, "max_steps": "0"}, headers=chinese)
    assert "步数 不能小于 1" in answer.text


def test_nodes_may_be_none_yet(alice: TestClient) -> None:
    assert "athanor worker" in alice.get("/nodes").text
