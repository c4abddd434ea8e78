"""How tokens of a SentencePiece model with byte fallback are shown: compared, in a batch, with their probabilities."""

import pytest
import torch
from starlette.testclient import TestClient
from transformers import PreTrainedTokenizerFast

from app.core import db, storage
from app.core.models import Job
from app.jobs.attempts.effective_spec import effective_spec
from tests import users
from tests.app.jobs import factories
from tests.app.playground.test_api import imported
from tests.app.tokenizers.test_api import imported as imported_tokenizer
from tests.app.tokenizers.test_api import sentencepiece_model
from tests.background import forget_waiting
from tests.trainer.runs import small_spec
from tests.users import Person
from trainer.datasets import prepare
from trainer.modeling.build import build_model
from trainer.report import Reporter
from trainer.run_dir import CorpusInput, Inputs, RunDir

BED = "床"  # no token of a model that was trained on bottles
CELL = f'<span class="character" role="group" aria-label="{BED}" data-characters="{BED}">'
FIELDS = {"train_batch_size": 4, "per_device_batch_size": 4, "max_steps": 2, "warmup_steps": 0, "sequence_length": 32}


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer_id(
    request: pytest.FixtureRequest, web: TestClient, alice_user: Person, tmp_path_factory: pytest.TempPathFactory
) -> str:
    forget_waiting()
    home = tmp_path_factory.mktemp("model")
    content = sentencepiece_model(home, model_type=request.param, byte_fallback=True, vocab_size=400)
    client = users.client(web, cookie=alice_user.cookie())
    done = imported_tokenizer(client, content, "bottles.model")
    assert done["state"] == "ready"
    return str(done["id"])


@pytest.fixture(scope="module")
def hf_tokenizer(tokenizer_id: str) -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(storage.tokenizer(tokenizer_id))
    assert {"<0xE5>", "<0xBA>", "<0x8A>"} < set(found.tokenize(BED))
    return found


@pytest.fixture(scope="module")
def model_id(
    alice_user: Person, hf_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A model of random weights with this tokenizer."""
    spec = small_spec(num_key_value_heads=4, sequence_length=64)
    files = tmp_path_factory.mktemp("weights") / "files"
    model = build_model(spec, None, hf_tokenizer, (), torch.device("cpu"), "fp32", lambda line: None)
    model.save_pretrained(files)
    hf_tokenizer.save_pretrained(files)
    return imported(alice_user, files)


def names_of(ids: list[int], hf_tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    return {number: name for number in ids if (name := str(hf_tokenizer.convert_ids_to_tokens(number)))[:3] == "<0x"}


def test_a_comparison_draws_the_bytes_of_a_character_together(alice: TestClient, tokenizer_id: str) -> None:
    body = {"text": f"the {BED}", "tokenizers": [tokenizer_id]}
    (compared,) = alice.post("/api/v1/tokenizers/compare", json=body).json()["data"]
    assert [token["bytes"] for token in compared["tokens"] if token["bytes"]] == ["e5", "ba", "8a"]
    page = alice.get("/tokenizers/compare", params={"text": f"the {BED}", "tokenizers": tokenizer_id}).text
    assert_drawn(page)


def assert_drawn(page: str) -> None:
    character = page.partition(CELL)[2]
    places = [character.index(f"<small>{byte}</small>") for byte in ("E5", "BA", "8A")]
    assert places == sorted(places)
    assert f"a part of “{BED}”" in character
    assert "0xE5" not in page


def test_a_batch_draws_them_together(
    alice: TestClient, alice_user: Person, tokenizer_id: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = factories.corpus(alice_user, text=f"Before the {BED} hangs a green bottle. " * 60)
    job_id = factories.submitted(alice_user, corpus, tokenizer=tokenizer_id, **FIELDS)
    with db.transaction() as session:
        spec = effective_spec(session.get_one(Job, job_id))
    source = CorpusInput(id=corpus, path=str(storage.corpus(corpus)), sha256="0" * 64)
    cache = str(tmp_path_factory.mktemp("cache"))
    inputs = Inputs(corpora=[source], tokenizer=str(storage.tokenizer(tokenizer_id)), cache=cache)
    run_dir = RunDir(storage.run(job_id))
    run_dir.create(spec, inputs, fence=1)
    prepare.prepare(run_dir, 1, Reporter(None))
    assert_drawn(alice.get(f"/jobs/{job_id}/batches?step=1").text)


def test_a_score_spells_each_byte(api: TestClient, model_id: str, hf_tokenizer: PreTrainedTokenizerFast) -> None:
    body = {"checkpoint": model_id, "text": f"the {BED}", "top_k": 20}
    tokens = api.post("/api/v1/inspect/score", json=body).raise_for_status().json()["tokens"]
    assert [token["text"] for token in tokens][-3:] == ["\\xe5", "\\xba", "\\x8a"]
    top = {choice["id"]: choice["text"] for token in tokens[1:] for choice in token["top"]}
    names = {number: name for number, name in names_of([*top], hf_tokenizer).items() if name >= "<0x80>"}
    assert names
    assert {number: top[number] for number in names} == {
        number: f"\\x{name[3:5].lower()}" for number, name in names.items()
    }


def test_a_generated_token_has_its_bytes(api: TestClient, model_id: str, hf_tokenizer: PreTrainedTokenizerFast) -> None:
    body = {"checkpoint": model_id, "prompt": "the", "max_tokens": 20, "seed": 1, "top_logprobs": 5}
    tokens = api.post("/api/v1/generate", json=body).raise_for_status().json()["tokens"]
    every = {choice["id"]: choice for token in tokens for choice in (token, *token["top"])}
    names = names_of([*every], hf_tokenizer)
    assert names
    assert {number: every[number]["bytes"] for number in names} == {
        number: [int(name[3:5], 16)] for number, name in names.items()
    }
