"""The pages of tokenizers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db, storage
from app.tokenizers import service, vocabulary
from tests.background import forget_waiting, run_waiting
from tests.users import Person
from trainer.processes.child_limits import ChildLimits

EVIL = "<script>alert(1)</script>"
TEXT = "a small house and a smaller mouse, 小房子和小老鼠。\n" * 400


@pytest.mark.parametrize("path", ["/tokenizers", "/tokenizers/compare", "/tokenizers/x"])
def test_a_visitor_is_redirected_to_the_login(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")


def test_empty_pages_explain_what_to_do(bob: TestClient) -> None:
    assert "No tokenizers yet" in bob.get("/tokenizers").text
    assert "No tokenizers yet" in bob.get("/tokenizers/compare").text


@pytest.fixture
def corpus(alice: TestClient) -> str:
    forget_waiting()
    answer = alice.post(
        "/api/v1/corpora", params={"filename": "house.txt", "name": "Its corpus"}, content=TEXT.encode()
    )
    run_waiting()
    return str(answer.json()["id"])


def test_the_form_trains_one_and_its_page_shows_the_curve(alice: TestClient, corpus: str) -> None:
    form = {
        "corpora": corpus,
        "vocab_size": "300",
        "special_tokens": "<|a|> <|b|>",
        "sample_megabytes": "1",
        "name": EVIL,
    }
    answer = alice.post("/tokenizers", data=form)
    assert answer.status_code == 303
    page = answer.headers["location"]
    assert "data-busy" in alice.get(f"{page}?part=state").text
    run_waiting()
    text = alice.get(page).text
    assert "<polyline" in text
    assert "&lt;|b|&gt;" in text
    assert EVIL not in text
    assert EVIL not in alice.get("/tokenizers").text
    compared = alice.get(
        "/tokenizers/compare", params={"tokenizers": page.rpartition("/")[2], "text": f"{EVIL}\n小"}
    ).text
    assert EVIL not in compared
    assert compared.count('role="listbox"') == 1
    samples = alice.get("/tokenizers/compare").text
    assert "lighthouse" in samples
    assert "灯塔" in samples


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"corpora": ""}, "There is no corpus"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"sample_megabytes": "nan"}, "Enter a number."),
        ({"vocab_size": "10"}, "258"),
    ],
    ids=["corpus", "vocabulary", "sample", "small"],
)
def test_a_wrong_form_keeps_what_was_entered(
    alice: TestClient, corpus: str, fields: dict[str, str], sentence: str
) -> None:
    answer = alice.post("/tokenizers", data={"corpora": corpus, "special_tokens": "<|kept|>", **fields})
    assert answer.status_code == 422
    assert sentence in answer.text
    assert "&lt;|kept|&gt;" in answer.text


def test_a_file_is_imported_by_the_form(alice: TestClient) -> None:
    forget_waiting()
    files = {"file": ("bad.json", b"{}")}
    answer = alice.post("/tokenizers/import", data={"name": "Mine"}, files=files)
    assert answer.status_code == 303
    run_waiting()
    text = alice.get(answer.headers["location"]).text
    assert "Mine" in text
    assert "The tokenizer cannot be loaded" in text
    refused = alice.post("/tokenizers/import", files={"file": ("bad.exe", b"MZ")})
    assert (refused.status_code, "bad.exe" in refused.text) == (422, True)
    assert alice.post("/tokenizers/import", files={"file": ("", b"")}).status_code == 422


@pytest.fixture
def tokenizer(alice_user: Person, corpus: str) -> Any:
    with db.transaction() as session:
        row = service.record_tokenizer(
            session, owner_id=alice_user.id, name=EVIL, vocab_size=262, sha256="f" * 64, corpora=[corpus, "gone"]
        )
    tokens = {chr(0x100 + n): n for n in range(256)}
    tokens |= {"Ġfire": 256, "çĤī": 257, "<b>": 258, "ĊĊ": 259, "çĤ": 260}
    folder = storage.tokenizer(row.id)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary._sample.cache_clear()
    (folder / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": tokens}, "decoder": {"type": "ByteLevel"}}), encoding="utf-8"
    )
    return row


def test_the_list_names_the_training_corpora_of_a_tokenizer(alice: TestClient, tokenizer: Any) -> None:
    text = alice.get("/tokenizers").text
    assert "Its corpus" in text
    assert "a deleted corpus" in text
    assert EVIL not in text


VOCABULARIES: dict[str, Callable[[], str]] = {
    "no JSON": lambda: "{",
    "deep": lambda: "[" * 1_000_000,
    "another shape": lambda: json.dumps({"model": {"vocab": 5}}),
    "large": lambda: json.dumps({"model": {"vocab": {"fire": 0}}, "padding": "a" * (40 << 20)}),
}


@pytest.mark.parametrize("content", VOCABULARIES.values(), ids=VOCABULARIES)
def test_a_hostile_vocabulary_is_read_by_a_child_with_limits(
    alice: TestClient, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, content: Callable[[], str]
) -> None:
    monkeypatch.setattr(vocabulary, "LIMITS", ChildLimits(memory_bytes=32 << 20, cpu_seconds=5))
    (storage.tokenizer(tokenizer.id) / "tokenizer.json").write_text(content())
    answer = alice.get(f"/tokenizers/{tokenizer.id}")
    assert (answer.status_code, "too large for a sample" in answer.text) == (200, True)


def test_half_a_character_in_a_token_is_left_out(alice: TestClient, tokenizer: Any) -> None:
    path = storage.tokenizer(tokenizer.id) / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": {"fir\ud800e": 0}}}))
    assert "<li>fire</li>" in alice.get(f"/tokenizers/{tokenizer.id}").text


def test_the_page_shows_tokens_as_readable_text(alice: TestClient, bob: TestClient, tokenizer: Any) -> None:
    text = alice.get(f"/tokenizers/{tokenizer.id}").text
    for token in ("·fire", "炉", "&lt;b&gt;", "⏎⏎"):
        assert f"<li>{token}</li>" in text
    assert "<b>" not in text
    assert bob.get(f"/tokenizers/{tokenizer.id}").status_code == 404
