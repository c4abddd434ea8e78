"""What requests of conversations become, and what answers are made of: the objects alone, without a model."""

from typing import Any

import pytest

from app.core import db
from app.openai.chat import ChatFormat, ChatRequest, RequestMessage, prompt_message
from app.openai.generations import GeneratedText, Generations, as_openai, derived_seed
from app.openai.models import Model
from app.openai.tools import CalledTool, Tool, tool_fields
from app.playground import failures
from app.playground.schemas import GenerationTask
from app.playground.service import GenerationEvent

CALLS = [{"name": "look_up", "arguments": "{}"}, {"name": "translate", "arguments": '{"word": "fire"}'}]
PARAMETERS = {"type": "object", "properties": {"word": {"type": "string"}}}


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "x", "messages": [{"role": "user", "content": "In"}], **fields})


def answer(**fields: Any) -> ChatFormat:
    return ChatFormat(request(**fields), Generations(Model("x", "1", db.now()), [GenerationTask(id="1", path="x")]))


@pytest.mark.parametrize(("limited", "count"), [({}, 2), ({"parallel_tool_calls": False}, 1)])
def test_calls_beside_the_first_are_left_out_where_they_are_not_wanted(limited: dict[str, Any], count: int) -> None:
    done = {"finish_reason": "stop", "num_tokens": 5, "num_prompt_tokens": 2}
    (choice,) = answer(**limited).complete([GeneratedText(calls=CALLS, done=done)])["choices"]
    assert [call["function"] for call in choice["message"]["tool_calls"]] == CALLS[:count]
    streamed = answer(**limited)
    chunks = [
        chunk
        for call in CALLS
        for chunk in streamed.chunks(0, GenerationEvent("piece", {"text": "", "tool_calls": [call]}))
    ]
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]) for call in deltas] == list(enumerate(CALLS[:count]))


@pytest.mark.parametrize(
    ("reason", "calls", "expected"),
    [("stop", CALLS, "tool_calls"), ("length", CALLS, "length"), ("stop", [], "stop"), ("length", [], "length")],
)
def test_an_answer_that_was_cut_says_so_whatever_it_calls(
    reason: str, calls: list[dict[str, Any]], expected: str
) -> None:
    done = {"finish_reason": reason, "num_tokens": 5, "num_prompt_tokens": 2}
    (choice,) = answer().complete([GeneratedText(calls=calls, done=done)])["choices"]
    assert choice["finish_reason"] == expected
    streamed = answer()
    events = [GenerationEvent("piece", {"text": "", "tool_calls": calls}), GenerationEvent("done", done)]
    chunks = [chunk for event in events for chunk in streamed.chunks(0, event)]
    assert chunks[-1]["choices"][0]["finish_reason"] == expected


def test_only_streams_that_are_asked_for_it_report_usage() -> None:
    text = GeneratedText(done={"finish_reason": "stop", "num_tokens": 5, "num_prompt_tokens": 2})
    assert list(answer(stream=True).last([text])) == []
    (told,) = answer(stream=True, stream_options={"include_usage": True}).last([text])
    assert told["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}


def test_messages_are_given_to_templates_in_the_words_that_these_know() -> None:
    def read(**fields: Any) -> dict[str, Any]:
        return prompt_message("messages.0", RequestMessage.model_validate(fields))

    assert read(role="developer", content="Be short.") == {"role": "system", "content": "Be short."}
    assert read(role="tool", content="hot", tool_call_id="call_1", name="look_up") == {
        "role": "tool",
        "content": "hot",
        "tool_call_id": "call_1",
        "name": "look_up",
    }
    refused = [{"type": "refusal", "refusal": "No."}, {"type": "text", "text": " Never."}]
    assert read(role="assistant", content=refused)["content"] == "No. Never."


def test_arguments_that_are_no_json_reach_the_template_as_they_are() -> None:
    def arguments(text: str) -> Any:
        call = CalledTool.model_validate({"function": {"name": "look_up", "arguments": text}})
        return call.for_template()["function"]["arguments"]

    assert [arguments(text) for text in ('{"word": "fire"}', "fire!", "[" * 100_000)] == [
        {"word": "fire"},
        "fire!",
        "[" * 100_000,
    ]


def test_tools_of_which_one_is_strict_each_have_their_own_rules() -> None:
    tools = [
        Tool.model_validate({"type": "function", "function": {"name": name, "parameters": PARAMETERS, **strict}})
        for name, strict in (("look_up", {"strict": True}), ("translate", {}))
    ]
    fields = tool_fields(tools, None)
    assert fields["strict_functions"] == [{"name": "look_up", "parameters": PARAMETERS}, {"name": "translate"}]
    required = tool_fields(tools, "required")
    assert (required["strict_functions"], len(required["required_functions"])) == ([], 2)
    assert tool_fields(tools, "none")["strict_functions"] == []


def test_sampling_is_that_of_the_model_by_default() -> None:
    assert request().sampling() == {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop": []}


def test_seeds_of_ours_are_kept_for_the_first_text_and_others_are_derived() -> None:
    assert [derived_seed(seed, 0) for seed in (0, 7, 2**31 - 1)] == [0, 7, 2**31 - 1]
    derived = [derived_seed(seed, index) for seed, index in ((2**31, 0), (-1, 0), (0, 1), (7, 1), (7, 2))]
    assert len(set(derived)) == 5
    assert all(0 <= seed < 2**31 for seed in derived)


@pytest.mark.parametrize(("code", "status"), [("line_full", 429), ("broker_away", 503)])
def test_overload_is_worth_another_request(code: str, status: int) -> None:
    error = as_openai(failures.error(code, {}), {})
    assert (error.status, error.headers["x-should-retry"]) == (status, "true")
