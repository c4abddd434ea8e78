"""Vectors of texts through OpenAI's own client and LangChain's adapter."""

from typing import Any

import pytest
import torch
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


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ""}, "input"),
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
