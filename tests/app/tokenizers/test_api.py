"""The API of tokenizers: training, import, comparison, and who may what."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from starlette.testclient import TestClient
from tokenizers import Tokenizer

from app.core import db, storage
from app.core.errors import PanelError
from app.corpora import tokenizers as stored_tokenizers
from app.tokenizers import service
from tests.background import forget_waiting, run_waiting
from tests.trainer import tokenizers_of_bases
from tests.users import Person

TEXT = "".join(
    f"{n} green bottles hang on the wall, and the old bottle number {n} falls. 墙上挂着{n}个绿色的瓶子。\n"
    for n in range(900)
)


@pytest.fixture(autouse=True)
def _only_own_tasks() -> None:
    forget_waiting()


@pytest.fixture
def corpus(alice: TestClient) -> str:
    answer = alice.post("/api/v1/corpora", params={"filename": "bottles.txt"}, content=TEXT.encode())
    run_waiting()
    return str(answer.json()["id"])


def trained(client: TestClient, corpus: str, **body: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/tokenizers", json={"corpora": [corpus], **body})
    assert answer.status_code == 201, answer.text
    assert answer.json()["state"] == "preparing"
    assert run_waiting() == 1
    done: dict[str, Any] = client.get(f"/api/v1/tokenizers/{answer.json()['id']}").json()
    return done


def imported(client: TestClient, content: bytes, filename: str, **query: str) -> dict[str, Any]:
    answer = client.post("/api/v1/tokenizers/import", params={"filename": filename, **query}, content=content)
    assert answer.status_code == 201, answer.text
    assert run_waiting() == 1
    done: dict[str, Any] = client.get(f"/api/v1/tokenizers/{answer.json()['id']}").json()
    return done


def test_a_tokenizer_is_trained_in_the_background(alice: TestClient, bob: TestClient, corpus: str) -> None:
    done = trained(alice, corpus, vocab_size=400, special_tokens=["<|user|>", "<|tool|>"], name="Bottles")
    assert (done["state"], done["vocab_size"], done["name"], done["source"]) == ("ready", 400, "Bottles", "training")
    found = Tokenizer.from_file(str(storage.tokenizer(done["id"]) / "tokenizer.json"))
    assert found.get_vocab_size() == 400
    assert found.encode("<|user|>hang").tokens[0] == "<|user|>"
    assert found.decode(found.encode(TEXT[:500]).ids, skip_special_tokens=False) == TEXT[:500]
    assert done["num_held_out_bytes"] > 1000
    values = [point["bytes_per_token"] for point in done["curve"]]
    assert values == sorted(values)
    assert done["curve"][-1]["vocab_size"] == 400
    assert not (storage.tokenizer(done["id"]) / "request.json").exists()
    assert bob.get(f"/api/v1/tokenizers/{done['id']}").status_code == 404


def test_a_text_with_few_words_gives_a_smaller_vocabulary(alice: TestClient, corpus: str) -> None:
    done = trained(alice, corpus, vocab_size=100_000, model_kind="encoder")
    assert done["state"] == "ready"
    assert 300 < done["vocab_size"] < 100_000
    settings = json.loads((storage.tokenizer(done["id"]) / "tokenizer_config.json").read_text())
    assert settings["mask_token"] == "<|mask|>"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"corpora": ["gone"]}, "corpus_unknown", "corpora"),
        ({"special_tokens": ["<a>", "<a>"]}, "token_twice", "special_tokens"),
        ({"special_tokens": ["a\u0000"]}, "character_invalid", "special_tokens"),
        ({"special_tokens": ["<|mask|>"]}, "token_reserved", "special_tokens"),
        ({"special_tokens": ["<a>", "<extra_id_0>"]}, "token_reserved", "special_tokens"),
        ({"vocab_size": 10}, "request_invalid", "vocab_size"),
        ({"sample_bytes": 1}, "request_invalid", "sample_bytes"),
    ],
    ids=["corpus", "twice", "character", "mask", "sentinel", "vocabulary", "sample"],
)
def test_a_wrong_field_is_named(alice: TestClient, corpus: str, body: dict[str, Any], code: str, field: str) -> None:
    answer = alice.post("/api/v1/tokenizers", json={"corpora": [corpus], **body})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["errors"][0]["field"].startswith(field)


def test_a_job_can_choose_one_only_once_it_is_ready(alice: TestClient, alice_user: Person, corpus: str) -> None:
    waiting = alice.post("/api/v1/tokenizers", json={"corpora": [corpus], "vocab_size": 300}).json()["id"]
    with db.transaction() as session, pytest.raises(PanelError) as refused:
        stored_tokenizers.usable_tokenizer(session, principal=alice_user.principal, tokenizer_id=waiting)
    assert (refused.value.code, refused.value.fields[0].field) == ("tokenizer_unready", "tokenizer")
    assert waiting not in alice.get("/jobs/new").text
    run_waiting()
    assert f'value="{waiting}"' in alice.get("/jobs/new").text
    job = alice.post("/api/v1/jobs", json={"recipe": "tiny", "corpora": [corpus], "tokenizer": waiting})
    assert (job.status_code, job.json()["tokenizer_id"]) == (201, waiting)
    assert alice.delete(f"/api/v1/tokenizers/{waiting}").json()["code"] == "tokenizer_in_use"


def test_a_cancelled_or_deleted_training_leaves_no_file(alice: TestClient, corpus: str) -> None:
    cancelled, deleted = (alice.post("/api/v1/tokenizers", json={"corpora": [corpus]}).json() for _ in range(2))
    alice.post(f"/api/v1/tasks/{cancelled['task_id']}/cancel")
    alice.delete(f"/api/v1/tokenizers/{deleted['id']}")
    assert run_waiting() == 0
    answer = alice.get(f"/api/v1/tokenizers/{cancelled['id']}").json()
    assert (answer["state"], answer["problems"][0]["code"]) == ("failed", "tokenizer_cancelled")
    assert alice.get(f"/api/v1/tokenizers/{deleted['id']}").status_code == 404


# ---- import ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace", "unigram", "word_piece"])
def test_a_tokenizer_json_is_imported_and_gives_the_same_tokens(alice: TestClient, kind: str) -> None:
    own: Tokenizer = getattr(tokenizers_of_bases, kind)()
    done = imported(alice, own.to_str().encode(), "tokenizer.json")
    assert (done["state"], done["vocab_size"]) == ("ready", own.get_vocab_size())
    body = {"text": "green bottles 绿色", "tokenizers": [done["id"]]}
    (compared,) = alice.post("/api/v1/tokenizers/compare", json=body).json()["data"]
    assert [token["id"] for token in compared["tokens"]] == own.encode(body["text"], add_special_tokens=False).ids
    page = alice.get("/tokenizers/compare", params={"text": "床", "tokenizers": done["id"]}).text
    is_by_bytes = kind in ("byte_level", "byte_fallback", "metaspace")
    assert ('<span class="character" role="group" aria-label="床" data-characters="床">' in page) == is_by_bytes
    assert ("<small>E5</small>" in page) == is_by_bytes


def sentencepiece_model(tmp_path: Path, **options: Any) -> bytes:
    (tmp_path / "text.txt").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "sp"), minloglevel=2, hard_vocab_limit=False,
        **{"vocab_size": 300, **options},
    )  # fmt: skip
    return (tmp_path / "sp.model").read_bytes()


def test_a_sentencepiece_model_is_converted(alice: TestClient, tmp_path: Path) -> None:
    done = imported(alice, sentencepiece_model(tmp_path), "bottles.model")
    assert (done["state"], done["algorithm"], done["end_of_text"]) == ("ready", "unigram", "</s>")
    compared = alice.post("/api/v1/tokenizers/compare", json={"text": TEXT[:200], "tokenizers": [done["id"]]}).json()
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "sp.model"))
    assert [token["id"] for token in compared["data"][0]["tokens"]] == oracle.encode(TEXT[:200])


def test_a_model_of_words_is_refused_with_the_reason(alice: TestClient, tmp_path: Path) -> None:
    done = imported(alice, sentencepiece_model(tmp_path, model_type="word"), "words.model")
    assert (done["state"], done["problems"][0]["code"]) == ("failed", "sentencepiece_kind")
    assert "word" in done["problems"][0]["message"]
    assert not storage.tokenizer(done["id"]).exists()


def test_an_archive_may_name_the_end_of_text(alice: TestClient, corpus: str) -> None:
    own = trained(alice, corpus, vocab_size=300)
    state = json.loads(
        (storage.tokenizer(own["id"]) / "tokenizer.json").read_text().replace("<|endoftext|>", "<|fin|>")
    )
    nameless = imported(alice, json.dumps(state).encode(), "tokenizer.json")
    assert nameless["problems"][0]["code"] == "end_missing"
    unknown = imported(alice, json.dumps(state).encode(), "tokenizer.json", end_of_text="</s>")
    assert unknown["problems"][0]["code"] == "end_unknown"
    named = imported(alice, json.dumps(state).encode(), "tokenizer.json", end_of_text="<|fin|>")
    assert (named["state"], named["end_of_text"]) == ("ready", "<|fin|>")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("folder/tokenizer.json", json.dumps(state))
        archive.writestr("folder/tokenizer_config.json", json.dumps({"eos_token": "<|fin|>"}))
    zipped = imported(alice, packed.getvalue(), "mine.zip")
    assert (zipped["state"], zipped["end_of_text"], zipped["vocab_size"]) == ("ready", "<|fin|>", 300)
    texts = {"text": TEXT[:300], "tokenizers": [own["id"], zipped["id"]]}
    first, second = alice.post("/api/v1/tokenizers/compare", json=texts).json()["data"]
    assert [token["id"] for token in first["tokens"]] == [token["id"] for token in second["tokens"]]


@pytest.mark.parametrize(
    ("content", "filename", "code"),
    [
        (b"{}", "tokenizer.json", "tokenizer_unreadable"),
        (b"not json", "tokenizer.json", "tokenizer_unreadable"),
        (b"\xff\xff", "tokenizer.model", "sentencepiece_broken"),
        (b"PK", "a.zip", "archive_broken"),
    ],
    ids=["object", "text", "model", "archive"],
)
def test_what_is_no_tokenizer_fails_with_a_sentence(
    alice: TestClient, content: bytes, filename: str, code: str
) -> None:
    done = imported(alice, content, filename)
    assert (done["state"], done["problems"][0]["code"]) == ("failed", code)


def test_a_large_file_is_no_body_of_another_request(alice: TestClient) -> None:
    """Tokenizers of a hundred thousand tokens have several MiB; other bodies may have one."""
    done = imported(alice, b"{" + b" " * (2 << 20), "tokenizer.json")
    assert (done["state"], done["problems"][0]["code"]) == ("failed", "tokenizer_unreadable")


def test_a_file_of_another_type_is_refused_at_once(alice: TestClient) -> None:
    answer = alice.post("/api/v1/tokenizers/import", params={"filename": "a.pkl"}, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "file_unknown")


# ---- comparison -----------------------------------------------------------------------------------------------------


def test_a_comparison_counts_tokens_and_bytes(alice: TestClient, bob: TestClient, corpus: str) -> None:
    small, large = (trained(alice, corpus, vocab_size=size) for size in (280, 500))
    text = "green bottles 绿色"
    body = {"text": text, "tokenizers": [small["id"], large["id"]]}
    first, second = alice.post("/api/v1/tokenizers/compare", json=body).json()["data"]
    for one, tokenizer in ((first, small), (second, large)):
        own = Tokenizer.from_file(str(storage.tokenizer(tokenizer["id"]) / "tokenizer.json"))
        assert [token["id"] for token in one["tokens"]] == own.encode(text, add_special_tokens=False).ids
        assert sum(token["num_bytes"] for token in one["tokens"]) == one["num_bytes"] == len(text.encode())
        assert one["bytes_per_token"] == one["num_bytes"] / one["num_tokens"]
    assert first["num_tokens"] > second["num_tokens"]
    assert bob.post("/api/v1/tokenizers/compare", json=body).json()["code"] == "tokenizer_unknown"


# ---- those of jobs --------------------------------------------------------------------------------------------------


def record(owner: Person, sha256: str) -> Any:
    with db.transaction() as session:
        return service.record_tokenizer(
            session, owner_id=owner.id, name="tiny", vocab_size=512, sha256=sha256, corpora=["00songlyrics"]
        )


def test_the_same_tokenizer_of_an_owner_is_stored_once(alice: TestClient, alice_user: Person, bob_user: Person) -> None:
    first, again, bobs = record(alice_user, "s" * 64), record(alice_user, "s" * 64), record(bob_user, "s" * 64)
    assert first.id == again.id != bobs.id
    listed = alice.get("/api/v1/tokenizers").json()["data"]
    assert [row["id"] for row in listed].count(first.id) == 1
    assert alice.get(f"/api/v1/tokenizers/{first.id}").json()["vocab_size"] == 512
    assert alice.get(f"/api/v1/tokenizers/{bobs.id}").status_code == 404
    with db.transaction() as session, pytest.raises(PanelError) as refused:
        stored_tokenizers.usable_tokenizer(session, principal=alice_user.principal, tokenizer_id=bobs.id)
    assert refused.value.fields[0].field == "tokenizer"
