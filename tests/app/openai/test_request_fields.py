"""What requests of responses and completions become, and what a response is made of: the objects alone."""

from typing import Any

import pytest

from app.core import db
from app.core.errors import PanelError
from app.openai.chat import ChatRequest
from app.openai.completions import CompletionRequest
from app.openai.generations import GeneratedText, Generations
from app.openai.models import Model
from app.openai.responses import ResponsesFormat, ResponsesRequest
from app.playground.schemas import GenerationTask
from app.playground.service import GenerationEvent


def test_instructions_are_the_system_message_before_the_conversation() -> None:
    request = ResponsesRequest.model_validate({"model": "x", "input": "In the", "instructions": "Be short."})
    assert request.task_fields()["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "In the"},
    ]


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [("stop", "completed", None), ("length", "incomplete", {"reason": "max_output_tokens"})],
)
def test_a_response_that_was_cut_is_incomplete_and_so_is_its_message(
    reason: str, status: str, details: dict[str, str] | None
) -> None:
    request = ResponsesRequest.model_validate({"model": "x", "input": "In the"})
    answer = ResponsesFormat(request, Generations(Model("x", "1", db.now()), [GenerationTask(id="1", path="x")]))
    done = {"finish_reason": reason, "num_tokens": 5, "num_prompt_tokens": 2}
    whole = answer.complete([GeneratedText("the fire", done=done)])
    assert (whole["status"], whole["incomplete_details"], whole["output"][0]["status"]) == (status, details, status)
    events = [GenerationEvent("piece", {"text": "the fire"}), GenerationEvent("done", done)]
    streamed = [chunk for event in events for chunk in answer.chunks(0, event)]
    assert (streamed[-1]["type"], streamed[-1]["item"]["status"]) == ("response.output_item.done", status)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 3}, 3),
        ({"max_tokens": 5, "max_completion_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 5}, 5),
    ],
)
def test_of_both_names_of_the_limit_the_newer_counts(limits: dict[str, int], expected: int) -> None:
    messages = [{"role": "user", "content": "In the"}]
    request = ChatRequest.model_validate({"model": "x", "messages": messages, **limits})
    assert request.task_fields()["max_tokens"] == expected


def texts_of(**fields: Any) -> list[dict[str, Any]]:
    return CompletionRequest.model_validate({"model": "x", **fields}).task_fields()


@pytest.mark.parametrize(("num_prompts", "choices"), [(32, 1), (16, 2), (4, 8)])
def test_the_prompts_of_a_request_times_their_texts_are_limited(num_prompts: int, choices: int) -> None:
    assert len(texts_of(prompt=["a"] * num_prompts, n=choices)) == num_prompts
    with pytest.raises(PanelError) as raised:
        texts_of(prompt=["a"] * (num_prompts + 1), n=choices)
    assert [(error.field, raised.value.status) for error in raised.value.fields] == [("prompt", 422)]
