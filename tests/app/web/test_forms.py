"""Errors in forms name fields as their labels do, never as the API does."""

import re
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.web.forms import by_label
from tests.app.jobs import factories
from tests.users import Person

TOO_LONG = "x" * 5_000
CLEANING = {
    "step": ["length", "near_duplicates", "language"],
    "length.min_words": "many",
    "near_duplicates.threshold": "9",
}
SEARCH = {"search_field_1": "learning_rate", "search_values_1": "x, y", "search_sampler": "random"}
TEXT_JOB = {"recipe": "tiny", "corpora": "CORPUS"}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("/synthetic/endpoints", {"name": TOO_LONG, "base_url": "x", "model": TOO_LONG, "input_price": "-1"}),
    ("/synthetic/endpoints", {"output_price": "free"}),
    ("/synthetic", {"num_documents": "0", "records_per_document": "x", "temperature": "3", "max_tokens": "1.5"}),
    ("/synthetic", {"corpus": "CORPUS", "max_cost": "-1", "num_turns": "99", "writer": f"model:{TOO_LONG}"}),
    ("/deployments", {"name": TOO_LONG, "model": TOO_LONG, "num_replicas": "x", "max_concurrency": "-1"}),
    ("/evaluations", {"corpora": "CORPUS", "limit": "0", "num_fewshot": "-1", "max_tokens": "x"}),
    ("/tokenizers", {"corpora": "CORPUS", "vocab_size": "1", "name": TOO_LONG, "special_tokens": TOO_LONG}),
    ("/tokenizers", {"corpora": "CORPUS", "sample_megabytes": "0"}),
    ("/corpora/CORPUS/clean", CLEANING),
    ("/playground", {"temperature": "9", "top_p": "x", "top_k": "-1", "min_p": "2", "max_tokens": "0", "seed": "-1"}),
    ("/playground", {"repetition_penalty": "0", "presence_penalty": "x", "frequency_penalty": "9", "logit_bias": "a"}),
    ("/playground", {"stop": TOO_LONG, "prompt": "x" * 200_000}),
    ("/jobs", {"recipe": "tiny"}),
    ("/jobs", {**TEXT_JOB, "learning_rate": "x", "warmup_steps": "9", "max_steps": "5"}),
    ("/jobs", {**TEXT_JOB, "recipe": "chat", "save_total_limit": "0", "per_device_batch_size": "x"}),
    ("/jobs", {**TEXT_JOB, "hidden_size": "7", "num_attention_heads": "2", "lora_rank": "x"}),
    ("/jobs", {**TEXT_JOB, **SEARCH, "search_num_jobs": "0"}),
]
ERROR = re.compile(r'<p class="error"[^>]*>.*?<span>(.*?)</span>|class="alert bad"[^>]*>(.*?)</div>', re.DOTALL)
TAG = re.compile(r"<[^>]+>")
NAME = re.compile(r"^[a-z]\w*\b(?! )|\b[a-z]+(?:_[a-z]+)+\b|^[a-z]+ (?:must|is|has)\b")


@pytest.fixture(scope="module")
def corpus_id(alice_user: Person) -> str:
    corpus = factories.corpus(alice_user)
    factories.finished(alice_user, corpus)  # forms that need a model are drawn once there is one
    return corpus


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize(("address", "fields"), FORMS)
def test_errors_in_a_form_have_the_labels_of_its_fields(
    alice: TestClient, corpus_id: str, address: str, fields: dict[str, Any], language: str
) -> None:
    body = {name: corpus_id if value == "CORPUS" else value for name, value in fields.items()}
    answer = alice.post(address.replace("CORPUS", corpus_id), data=body, headers={"Accept-Language": language})
    assert 400 <= answer.status_code < 500, answer.status_code
    errors = [unescape(TAG.sub(" ", field or alert)).strip() for field, alert in ERROR.findall(answer.text)]
    assert errors, "the page says what is wrong"
    raw = [error for error in errors if NAME.search(error.replace("warmup_stable_decay", ""))]
    assert raw == []


@pytest.mark.parametrize(
    ("error", "field", "sentence"),
    [
        ("max_tokens must be a whole number", "max_tokens", "Label must be a whole number"),
        ("num_jobs is missing", "search_num_jobs", "Label is missing"),
        ("min_words must be at least 1", "length.min_words", "Label must be at least 1"),
        ("special_tokens.0 must not be empty", "special_tokens", "Label must not be empty"),
        ("tokens.txt is not a model file.", "filename", "tokens.txt is not a model file."),
        ("Enter a name.", "name", "Enter a name."),
    ],
)
def test_only_the_name_of_the_field_itself_becomes_its_label(error: str, field: str, sentence: str) -> None:
    assert by_label(error, field, "Label") == sentence
