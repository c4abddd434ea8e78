"""Conversations through OpenAI's own client: streamed and whole, n texts, log-probabilities, errors, disconnects."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from app.playground.schemas import GenerationMessage
from tests.app.openai.conftest import CHAT_TEMPLATE
from tests.app.playground.conftest import SLOTS, StoreCheckpoint, StoredCheckpoint, free_slots
from tests.users import Person
from tests.waiting import until
from trainer.inference import generation
from worker.inference import generations

QUESTION = [{"role": "user", "content": "In the"}]


def ask(client: Any, model: StoredCheckpoint, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": model.id, "messages": QUESTION, "max_tokens": 24, "temperature": 0, **fields}
    return client.chat.completions.create(**asked)


def joined(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_an_answer_has_the_text_of_the_model_and_counts_its_tokens(client: Any, talking: StoredCheckpoint) -> None:
    answer = ask(client, talking)
    choice = answer.choices[0]
    assert choice.message.content.startswith(" the furnace was cold")
    assert (choice.index, choice.message.role, choice.finish_reason, choice.logprobs) == (
        0,
        "assistant",
        "length",
        None,
    )
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.usage.completion_tokens == 24
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert answer._request_id is not None


def test_a_stream_has_the_text_and_the_probabilities_of_the_whole_answer(
    client: Any, talking: StoredCheckpoint
) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 5, "seed": 3, "temperature": 1}
    whole = ask(client, talking, **fields)
    chunks = list(ask(client, talking, stream=True, stream_options={"include_usage": True}, **fields))

    assert joined(chunks) == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-2].choices[0].delta.content is None
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    tokens = [token for chunk in chunks[:-1] for token in getattr(chunk.choices[0].logprobs, "content", None) or []]
    assert tokens == whole.choices[0].logprobs.content
    assert len(tokens) == 24


def test_log_probabilities_are_those_of_a_forward_pass(client: Any, talking: StoredCheckpoint) -> None:
    answer = ask(client, talking, logprobs=True, top_logprobs=5, temperature=0.7, seed=1).choices[0]
    loaded = generation.load(talking.path, "cpu")
    vocabulary = loaded.tokenizer.get_vocab()
    ids = loaded.encode("In the beginning")
    for token in answer.logprobs.content:
        with torch.inference_mode():
            expected = loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        values, likeliest = expected.topk(5)
        assert [other.logprob for other in token.top_logprobs] == pytest.approx(values.tolist(), abs=1e-4)
        same = [number for number in vocabulary.values() if loaded.tokenizer.decode([number]) == token.token]
        chosen = min(same or likeliest.tolist(), key=lambda number: abs(float(expected[number]) - token.logprob))
        assert token.logprob == pytest.approx(float(expected[chosen]), abs=1e-4)
        ids.append(chosen)
    assert b"".join(bytes(token.bytes) for token in answer.logprobs.content).decode(errors="ignore") in (
        answer.message.content
    )


def test_several_answers_differ_and_their_seeds_follow_from_that_of_the_request(
    client: Any, talking: StoredCheckpoint
) -> None:
    fields = {"n": 3, "seed": 5, "temperature": 2, "max_tokens": 16}
    first, again = ask(client, talking, **fields), ask(client, talking, **fields)
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in again.choices] == texts
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    num_full = sum(choice.finish_reason == "length" for choice in first.choices)
    assert 16 * num_full <= first.usage.completion_tokens <= 48
    assert num_full >= 1
    assert first.usage.prompt_tokens == ask(client, talking).usage.prompt_tokens
    assert ask(client, talking, **{**fields, "n": 1}).choices[0].message.content == texts[0]
    streamed = ["", "", ""]
    for chunk in ask(client, talking, stream=True, **fields):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_a_stop_string_ends_the_text(client: Any, talking: StoredCheckpoint) -> None:
    for stop in ("was cold", ["never", "was cold"]):
        choice = ask(client, talking, stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == (" the furnace ", "stop")


def test_the_default_is_to_write_to_the_end_of_the_context(client: Any, talking: StoredCheckpoint) -> None:
    answer = ask(client, talking, max_tokens=None)
    assert answer.choices[0].finish_reason == "stop" or answer.usage.total_tokens == 257


def test_a_bias_decides_and_text_parts_are_joined(client: Any, talking: StoredCheckpoint) -> None:
    number = generation.load(talking.path, "cpu").encode("z")[-1]
    parts = [{"type": "text", "text": "In "}, {"type": "text", "text": "the"}]
    messages = [{"role": "developer", "content": ""}, {"role": "user", "content": parts}]
    biased = ask(client, talking, messages=messages, logit_bias={str(number): 100}, max_tokens=3)
    assert biased.choices[0].message.content == "zzz"
    assert ask(client, talking, messages=messages[1:]).choices == ask(client, talking).choices


def test_the_newer_name_of_the_limit_counts(client: Any, talking: StoredCheckpoint) -> None:
    answer = ask(client, talking, max_completion_tokens=3)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")


def test_log_probabilities_without_alternatives(client: Any, talking: StoredCheckpoint) -> None:
    tokens = ask(client, talking, logprobs=True, max_tokens=3).choices[0].logprobs.content
    assert [token.top_logprobs for token in tokens] == [[]] * 3


def test_a_nucleus_of_nothing_is_the_likeliest_token_and_minus_one_is_all(
    client: Any, talking: StoredCheckpoint
) -> None:
    assert ask(client, talking, temperature=2, top_p=0).choices == ask(client, talking).choices
    fields = {"temperature": 2, "seed": 4}
    every = ask(client, talking, extra_body={"top_k": -1}, **fields)
    assert every.choices == ask(client, talking, **fields).choices


def test_an_answer_continues_the_last_message(client: Any, talking: StoredCheckpoint) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": " the furnace"}]
    answer = ask(client, talking, messages=messages, extra_body={"continue_final_message": True})
    assert answer.choices[0].message.content.startswith(" was cold")
    alone = ask(client, talking, messages=messages[1:], extra_body={"continue_final_message": True})
    assert alone.choices == ask(client, talking, messages=messages[1:]).choices


def test_the_asynchronous_client_reads_whole_and_streamed_answers(
    openai: Any, address: str, key: str, talking: StoredCheckpoint
) -> None:
    async def read() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
            whole = await ask(client, talking)
            chunks = [chunk async for chunk in await ask(client, talking, stream=True)]
            return whole.choices[0].message.content, joined(chunks)

    whole, streamed = asyncio.run(read())
    assert whole == streamed != ""


# ---- errors ---------------------------------------------------------------------------------------------------------


def refused(openai: Any, client: Any, model: StoredCheckpoint, **fields: Any) -> Any:
    with pytest.raises(openai.APIStatusError) as raised:
        ask(client, model, **fields)
    return raised.value


def test_a_wrong_key_and_a_foreign_model_are_refused(
    openai: Any, client: Any, bob_user: Person, talking: StoredCheckpoint
) -> None:
    wrong = refused(openai, client.with_options(api_key="ath_wrong"), talking)
    assert (type(wrong), wrong.code) == (openai.AuthenticationError, "invalid_api_key")
    foreign = refused(openai, client.with_options(api_key=bob_user.token()), talking)
    assert (type(foreign), foreign.code, foreign.param) == (openai.NotFoundError, "model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "request_invalid"),
        ({"n": 9}, "n", "request_invalid"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "request_invalid"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "request_invalid"),
        ({"messages": []}, "messages", "request_invalid"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio", "unsupported_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            "messages.0.content.0.type",
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "user", "content": "xyz " * 500}]}, "messages", "context_length_exceeded"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "token_unknown"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_named(
    openai: Any, client: Any, talking: StoredCheckpoint, fields: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    error = refused(openai, client, talking, stream=stream, **fields)
    assert (type(error), error.param, error.code) == (openai.BadRequestError, param, code)
    assert error.body["message"]
    assert error.request_id


def test_a_model_without_a_chat_template_answers_no_conversation(
    openai: Any, client: Any, checkpoint: StoredCheckpoint
) -> None:
    error = refused(openai, client, checkpoint)
    assert (type(error), error.param, error.code) == (openai.BadRequestError, "messages", "chat_template_missing")


def test_a_full_queue_is_a_limit_of_rate(
    openai: Any, client: Any, talking: StoredCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.playground.generation_queue.MAX_WAITING", 1)
    error = refused(openai, client, talking, n=2)
    assert (type(error), error.code) == (openai.RateLimitError, "line_full")
    assert int(error.response.headers["retry-after"]) > 0
    assert error.response.headers["x-should-retry"] == "true"


def test_a_failure_in_the_middle_of_a_stream_raises_its_code(
    openai: Any, client: Any, talking: StoredCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = generations._message_batches

    def broken(connection: Any) -> Iterator[list[GenerationMessage]]:
        """The messages up to the first text, as if the inference process died then."""
        for messages in batches(connection):
            yield messages
            if any(message.event == "piece" for message in messages):
                return

    monkeypatch.setattr(generations, "_message_batches", broken)
    stream = ask(client, talking, stream=True, max_tokens=200, temperature=2, logprobs=True)
    assert next(stream).choices[0].delta.role == "assistant"
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    assert (type(raised.value), raised.value.code) == (openai.APIError, "inference_lost")
    assert "The inference process ended" in raised.value.message


def test_a_client_that_disconnects_frees_its_places(client: Any, talking: StoredCheckpoint) -> None:
    stream = ask(client, talking, stream=True, n=2, max_tokens=200, temperature=2)
    next(iter(stream))
    stream.close()
    until(lambda: free_slots() == SLOTS, 5, "both slots to be free")


def test_a_client_that_does_not_wait_for_its_answer_frees_its_place(
    openai: Any, client: Any, store_checkpoint: StoreCheckpoint, alice_user: Person
) -> None:
    endless = store_checkpoint(alice_user)
    (endless.path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    config = json.loads((endless.path / "config.json").read_text())
    (endless.path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100_000}))
    never_end = {str(config["eos_token_id"]): -100}
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=2), endless, max_tokens=None, temperature=2, logit_bias=never_end)
    until(lambda: free_slots() == SLOTS, 5, "both slots to be free")
