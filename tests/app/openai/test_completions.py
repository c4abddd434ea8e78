"""Texts continued through OpenAI's own client: several prompts, tokens as prompts, echo, log-probabilities, streams."""

from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from tests.app.playground.conftest import StoredCheckpoint
from trainer.inference import generation

PROMPT = "In the beginning"


def complete(client: Any, model: StoredCheckpoint, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": model.id, "prompt": PROMPT, "max_tokens": 20, "temperature": 0, **fields}
    return client.completions.create(**asked)


def test_a_text_is_continued_whole_and_as_a_stream(client: Any, checkpoint: StoredCheckpoint) -> None:
    answer = complete(client, checkpoint)
    assert (answer.object, answer.id[:6]) == ("text_completion", "cmpl-0")
    assert answer.choices[0].text.startswith(" the furnace was")
    assert answer.choices[0].finish_reason == "length"
    chunks = list(complete(client, checkpoint, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == answer.choices[0].text
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert (chunks[-1].choices, chunks[-1].usage) == ([], answer.usage)
    assert complete(client, checkpoint, max_tokens=None).usage.completion_tokens == 16


def test_several_prompts_each_have_their_texts(client: Any, checkpoint: StoredCheckpoint) -> None:
    answer = complete(client, checkpoint, prompt=[PROMPT, "She fed"], n=2)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert texts[0] == texts[1] == complete(client, checkpoint).choices[0].text
    assert texts[2] == texts[3] == complete(client, checkpoint, prompt="She fed").choices[0].text
    alone = [complete(client, checkpoint, prompt=prompt).usage.prompt_tokens for prompt in (PROMPT, "She fed")]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (sum(alone), 80)


def test_equal_prompts_of_a_request_have_different_texts(client: Any, checkpoint: StoredCheckpoint) -> None:
    fields = {"prompt": [PROMPT] * 2, "n": 2, "seed": 5, "temperature": 2, "max_tokens": 16}
    texts = [choice.text for choice in complete(client, checkpoint, **fields).choices]
    assert len(set(texts)) == 4
    assert [choice.text for choice in complete(client, checkpoint, **fields).choices] == texts


def test_tokens_are_a_prompt_too_and_an_echo_begins_the_text(client: Any, checkpoint: StoredCheckpoint) -> None:
    ids = generation.load(checkpoint.path, "cpu").encode(PROMPT)
    text = complete(client, checkpoint).choices[0].text
    for prompt in (PROMPT, ids, [ids]):
        assert complete(client, checkpoint, prompt=prompt).choices[0].text == text
        echoed = complete(client, checkpoint, prompt=prompt, echo=True)
        assert echoed.choices[0].text == PROMPT + text
    streamed = list(complete(client, checkpoint, echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == PROMPT + text
    assert complete(client, checkpoint, echo=True, max_tokens=0).choices[0].text == PROMPT


def test_log_probabilities_have_the_places_of_their_tokens(client: Any, checkpoint: StoredCheckpoint) -> None:
    choice = complete(client, checkpoint, logprobs=3).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    ends = [*logprobs.text_offset[1:], len(choice.text)]
    assert [choice.text[s:e] for s, e in zip(logprobs.text_offset, ends, strict=True)] == logprobs.tokens
    loaded = generation.load(checkpoint.path, "cpu")
    ids = loaded.encode(PROMPT)
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        with torch.inference_mode():
            expected = loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        values, numbers = expected.topk(3)
        assert sorted(top.values(), reverse=True) == pytest.approx(values.tolist(), abs=1e-4)
        assert logprob == top[token] == max(top.values())
        ids.append(int(numbers[0]))
    chunks = list(complete(client, checkpoint, logprobs=3, stream=True))
    assert [offset for chunk in chunks for offset in chunk.choices[0].logprobs.text_offset] == logprobs.text_offset


def test_an_echo_has_the_log_probabilities_of_the_prompt(client: Any, checkpoint: StoredCheckpoint) -> None:
    answer = complete(client, checkpoint, echo=True, logprobs=2, max_tokens=3).choices[0]
    logprobs = answer.logprobs
    loaded = generation.load(checkpoint.path, "cpu")
    ids = loaded.encode(PROMPT)
    with torch.inference_mode():
        expected = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert (logprobs.token_logprobs[0], logprobs.top_logprobs[0]) == (None, None)
    for place, number in enumerate(ids[1:], 1):
        assert logprobs.token_logprobs[place] == pytest.approx(float(expected[place - 1, number]), abs=1e-4)
        assert max(logprobs.top_logprobs[place].values()) == pytest.approx(float(expected[place - 1].max()), abs=1e-4)
    assert "".join(logprobs.tokens) == answer.text
    assert len(logprobs.tokens) == len(ids) + 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_for_many_texts_is_one_call_of_a_deployment(
    openai: Any, client: Any, alice_api: TestClient, checkpoint: StoredCheckpoint, *, stream: bool
) -> None:
    name = f"many-{openai.__version__}-{client.__class__.__name__}-{stream}"
    fields = {"name": name, "model": checkpoint.id, "requests_per_minute": 2}
    deployment = alice_api.post("/api/v1/deployments", json=fields).json()
    asked = {
        "model": name,
        "max_tokens": 4,
        **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
    }
    answers = [
        client.completions.create(**asked, prompt=PROMPT, n=8),
        client.completions.create(**asked, prompt=[PROMPT] * 16),
    ]
    usages = [list(answer)[-1].usage if stream else answer.usage for answer in answers]
    day = alice_api.get(f"/api/v1/deployments/{deployment['id']}").json()["last_day"]
    assert (day["requests"], day["errors"]) == (2, 0)
    assert usages[1].prompt_tokens == 16 * usages[0].prompt_tokens
    assert day["prompt_tokens"] == sum(usage.prompt_tokens for usage in usages)
    assert day["tokens"] == sum(usage.completion_tokens for usage in usages)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": ["a"] * 33}, "prompt"),
        ({"prompt": [[999_999]]}, "prompt"),
        ({"prompt": "xyz " * 500}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
def test_a_wrong_field_is_named(
    openai: Any, client: Any, checkpoint: StoredCheckpoint, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        complete(client, checkpoint, **fields)
    assert raised.value.param == param
