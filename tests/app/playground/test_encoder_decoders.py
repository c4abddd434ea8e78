"""Encoder-decoders: what they make of a source text over REST and /v1, and where in the playground they open."""

import html
import re
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient
from transformers import PreTrainedModel

from tests.app.playground.test_api import imported
from tests.trainer.bases import random_checkpoint
from tests.users import Person
from trainer.inference.generation import LoadedModel

SOURCE = "In the beginning the furnace was cold"
TALK = [{"role": "user", "content": SOURCE}]


@dataclass(frozen=True)
class Turner:
    """An imported T5 of Alice's with random weights, and what transformers reads of its files."""

    id: str
    loaded: LoadedModel

    def expected(self, source: str, **options: Any) -> list[int]:
        """The tokens that transformers generates, greedily."""
        model: PreTrainedModel = self.loaded.model
        ids = self.loaded.tokenizer(source, return_tensors="pt")["input_ids"]
        written: list[int] = model.generate(ids, do_sample=False, max_new_tokens=12, **options)[0, 1:].tolist()
        return written


@pytest.fixture(scope="module")
def turner(tmp_path_factory: pytest.TempPathFactory, alice_user: Person, database: str) -> Turner:
    files, loaded = random_checkpoint(tmp_path_factory.mktemp("t5"), "t5", "seq2seq")
    for parameter in loaded.model.parameters():
        parameter.data *= 3  # so that texts do not repeat one token
    loaded.model.save_pretrained(files)
    return Turner(imported(alice_user, files, "t5"), loaded)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, alice_user: Person, database: str) -> str:
    """The ID of an imported BERT of Alice's."""
    return imported(alice_user, random_checkpoint(tmp_path_factory.mktemp("bert"), "bert", "masked")[0], "bert")


def generate(api: TestClient, turner: Turner, **fields: Any) -> Any:
    asked = {"checkpoint": turner.id, "prompt": SOURCE, "temperature": 0, "max_tokens": 12, **fields}
    return api.post("/api/v1/generate", json=asked)


def tokens(answer: Any) -> list[int]:
    return [token["id"] for token in answer.json()["tokens"]]


def test_a_text_is_what_transformers_generates(alice_api: TestClient, node: str, turner: Turner) -> None:
    answer = generate(alice_api, turner, top_logprobs=2)

    assert tokens(answer) == turner.expected(SOURCE)
    assert len(set(tokens(answer))) > 4, "it does not repeat one token"
    assert all(len(token["top"]) == 2 for token in answer.json()["tokens"])
    assert tokens(answer) != tokens(generate(alice_api, turner, prompt="Who fed it charcoal?", top_logprobs=2))


def test_a_repetition_penalty_counts_the_text_and_not_its_source(
    alice_api: TestClient, node: str, turner: Turner
) -> None:
    penalized = tokens(generate(alice_api, turner, repetition_penalty=1.7, top_logprobs=0))

    assert penalized == turner.expected(SOURCE, repetition_penalty=1.7) != turner.expected(SOURCE)


def test_conversations_and_scores_are_refused(alice_api: TestClient, node: str, turner: Turner) -> None:
    refused = generate(alice_api, turner, prompt="", messages=TALK)
    assert (refused.status_code, refused.json()["code"]) == (422, "messages_unfit")
    assert refused.json()["errors"][0]["field"] == "messages"

    body = {"model": turner.id, "prompt": SOURCE, "max_tokens": 2}
    assert (
        alice_api.post("/v1/completions", json={**body, "echo": True}).json()["choices"][0]["text"].startswith(SOURCE)
    )
    scored = alice_api.post("/v1/completions", json={**body, "echo": True, "logprobs": 1})
    assert scored.status_code == 400
    assert scored.json()["error"]["code"] == "score_unfit"


def chosen(page: str) -> list[str]:
    return re.findall(r'<option value="(\w+)"[^>]*selected', page)


def test_it_opens_in_a_tab_of_its_own(alice: TestClient, turner: Turner) -> None:
    page = alice.get(f"/playground?checkpoint={turner.id}").text

    assert 'aria-current="page">Text to text' in page
    assert 'name="prefix"' in page
    assert chosen(page) == [turner.id]
    assert re.search(r'name="temperature" value="0"', page)
    for tab in ("chat", "completion"):
        assert turner.id not in re.findall(r'<option value="(\w+)"', alice.get(f"/playground?tab={tab}").text)
    assert turner.id in alice.get("/deployments").text


def test_the_tab_without_a_model_leads_to_one(bob: TestClient) -> None:
    page = bob.get("/playground?tab=text-to-text").text

    assert "No encoder-decoders yet" in page
    assert 'href="/jobs/new?recipe=tiny-t5"' in page


def test_an_encoder_leads_to_the_page_that_looks_inside(alice: TestClient, bob: TestClient, encoder: str) -> None:
    answer = alice.get(f"/playground?checkpoint={encoder}", follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, f"/playground/inspect?checkpoint={encoder}")
    assert bob.get(f"/playground?checkpoint={encoder}", follow_redirects=False).status_code == 404


def test_without_scripts_the_form_shows_the_text_beside_its_source(
    alice: TestClient, alice_api: TestClient, node: str, turner: Turner
) -> None:
    form = {"checkpoint": turner.id, "prompt": SOURCE, "prefix": "summarize:", "temperature": "0", "max_tokens": "12"}
    page = alice.post("/playground", data={**form, "random_seed": "true"}).text
    text = generate(alice_api, turner, prompt=f"summarize: {SOURCE}").json()["text"]

    assert "data-prefix>summarize:</span>" in page
    before, _tag, output = page.partition("data-output>")
    assert SOURCE in before.rpartition("data-source")[2]
    assert text
    assert html.unescape(output).startswith(text)


def test_a_deployment_opens_in_the_tab_of_its_model(alice: TestClient, turner: Turner) -> None:
    row = alice.post("/api/v1/deployments", json={"name": "translator", "model": turner.id}).json()
    page = alice.get(f"/playground?checkpoint={row['id']}").text

    assert 'aria-current="page">Text to text' in page
    assert chosen(page) == [row["id"]]
    assert "translator" in page
    alice.delete(f"/api/v1/deployments/{row['id']}")
