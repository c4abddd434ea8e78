"""Vectors of texts through OpenAI's own client and LangChain's adapter."""

from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch.nn import functional as F

from tests.app.playground.conftest import StoredCheckpoint
from trainer.inference import generation

TEXTS = ["In the beginning", "the fire fed itself", "起初"]


def test_vectors_are_the_means_of_the_last_hidden_states(client: Any, checkpoint: StoredCheckpoint) -> None:
    loaded = generation.load(checkpoint.path, "cpu")
    plain = client.embeddings.create(model=checkpoint.id, input=TEXTS, encoding_format="float")
    packed = client.embeddings.create(model=checkpoint.id, input=TEXTS)  # base64, which the client unpacks
    num_tokens = 0
    for text, one, other in zip(TEXTS, plain.data, packed.data, strict=True):
        ids = loaded.tokenizer(text)["input_ids"]
        num_tokens += len(ids)
        with torch.inference_mode():
            hidden = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        expected = F.normalize(hidden.mean(0), dim=0).tolist()
        assert one.embedding == pytest.approx(expected, abs=1e-4)
        assert other.embedding == pytest.approx(one.embedding, abs=1e-6)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == num_tokens
    assert [one.index for one in plain.data] == [0, 1, 2]


def test_more_texts_than_a_task_takes_are_embedded_in_order(client: Any, checkpoint: StoredCheckpoint) -> None:
    texts = [f"fire {number}" for number in range(20)]
    many = client.embeddings.create(model=checkpoint.id, input=texts)
    last = client.embeddings.create(model=checkpoint.id, input=texts[-1], dimensions=64)
    assert [one.index for one in many.data] == list(range(20))
    assert many.data[-1].embedding == pytest.approx(last.data[0].embedding, abs=1e-5)


def test_tokens_give_the_vectors_of_their_texts(client: Any, checkpoint: StoredCheckpoint) -> None:
    tokenizer = generation.load(checkpoint.path, "cpu").tokenizer
    tokens = [tokenizer(text)["input_ids"] for text in TEXTS]
    expected = client.embeddings.create(model=checkpoint.id, input=TEXTS)
    many = client.embeddings.create(model=checkpoint.id, input=tokens)
    one = client.embeddings.create(model=checkpoint.id, input=tokens[1])
    for vector, other in zip([*many.data, one.data[0]], [*expected.data, expected.data[1]], strict=True):
        assert vector.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert many.usage.prompt_tokens == expected.usage.prompt_tokens == sum(map(len, tokens))


def test_a_deployment_embeds_by_its_name_and_counts_a_request_once(
    openai: Any, client: Any, alice_api: TestClient, checkpoint: StoredCheckpoint
) -> None:
    name = f"vectors-{openai.__version__}"
    deployment = alice_api.post("/api/v1/deployments", json={"name": name, "model": checkpoint.id}).json()
    texts = [f"fire {number}" for number in range(20)]  # two tasks
    answer = client.embeddings.create(model=name, input=texts)
    expected = client.embeddings.create(model=checkpoint.id, input=texts)
    assert answer.model == name
    assert answer.data[-1].embedding == pytest.approx(expected.data[-1].embedding, abs=1e-6)
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=name, input=[2**31 - 1])
    day = alice_api.get(f"/api/v1/deployments/{deployment['id']}").json()["last_day"]
    assert (day["requests"], day["errors"], day["prompt_tokens"]) == (2, 1, expected.usage.prompt_tokens)


def test_a_deployment_embeds_so_many_times_in_a_minute(
    openai: Any, client: Any, alice_api: TestClient, checkpoint: StoredCheckpoint
) -> None:
    name = f"slow-{openai.__version__}"
    alice_api.post("/api/v1/deployments", json={"name": name, "model": checkpoint.id, "requests_per_minute": 1})

    def embed_three_times() -> None:  # the minute may change once
        for _ in range(3):
            client.embeddings.create(model=name, input="a")

    with pytest.raises(openai.RateLimitError):
        embed_three_times()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [1, -2]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [[1, 10**6]]}, "input"),
        ({"input": [1] * 300}, "input"),  # more than the context
        ({"input": "xyz " * 500}, "input"),
        ({"dimensions": 5}, "dimensions"),
    ],
)
def test_a_wrong_field_is_named(
    openai: Any, client: Any, checkpoint: StoredCheckpoint, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(**{"model": checkpoint.id, "input": "a", **fields})
    assert raised.value.param == param


@pytest.mark.parametrize("texts", ["x" * 20_001, ["a"] * 2_049, ["a", "x" * 20_001]])
def test_too_long_and_too_many_texts_are_refused(alice_api: TestClient, texts: str | list[str]) -> None:
    answer = alice_api.post("/v1/embeddings", json={"model": "any", "input": texts})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "prompt_too_large")
    assert answer.json()["error"]["param"] == "input"
