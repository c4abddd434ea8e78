"""The newer endpoint for conversations through OpenAI's own client: whole, as events, with functions and a schema."""

import json
from typing import Any

import jsonschema_rs
import pytest

from tests.app.openai.test_structured_output import SCHEMA, TOOLS
from tests.app.playground.conftest import StoredCheckpoint

FUNCTIONS = [{"type": "function", **tool["function"]} for tool in TOOLS]  # type: ignore[dict-item]


def respond(client: Any, model: StoredCheckpoint, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": model.id, "input": "In the", "temperature": 0, "max_output_tokens": 24, **fields}
    return client.responses.create(**asked)


def test_an_answer_is_that_of_chat_completions(client: Any, talking: StoredCheckpoint) -> None:
    answer = respond(client, talking, include=["message.output_text.logprobs"], top_logprobs=2)
    messages = [{"role": "user", "content": "In the"}]
    chat = client.chat.completions.create(
        model=talking.id, messages=messages, temperature=0, max_tokens=24, logprobs=True, top_logprobs=2
    )
    assert answer.output_text == chat.choices[0].message.content != ""
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (chat.usage.prompt_tokens, 24)
    logprobs = [token.logprob for token in answer.output[0].content[0].logprobs]
    assert logprobs == [token.logprob for token in chat.choices[0].logprobs.content]


def test_the_events_lead_to_the_whole_answer(client: Any, talking: StoredCheckpoint) -> None:
    whole = respond(client, talking, instructions=" ", extra_body={"seed": 1})
    events = list(respond(client, talking, instructions=" ", extra_body={"seed": 1}, stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type.endswith("delta")) == whole.output_text
    assert events[-1].response.output_text == whole.output_text
    assert events[-1].response.usage == whole.usage


def test_the_library_collects_a_stream(client: Any, talking: StoredCheckpoint) -> None:
    with client.responses.stream(model=talking.id, input="In the", temperature=0, max_output_tokens=9) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.incomplete"
    assert stream.get_final_response is not None


def test_a_schema_is_kept(client: Any, talking: StoredCheckpoint) -> None:
    text = {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": SCHEMA}}
    answer = respond(client, talking, text=text, temperature=2, max_output_tokens=150)
    assert answer.status == "completed"
    jsonschema_rs.validate(SCHEMA, json.loads(answer.output_text))


def test_a_function_is_called_and_its_result_answered(client: Any, calling: StoredCheckpoint) -> None:
    fields = {
        "tools": FUNCTIONS,
        "tool_choice": "required",
        "max_output_tokens": 100,
        "temperature": 1,
        "extra_body": {"seed": 2},
    }
    (call,) = respond(client, calling, **fields).output
    assert (call.type, call.status) == ("function_call", "completed")
    assert call.name in ("look_up", "translate")
    assert set(json.loads(call.arguments)) == {"word"}
    events = list(respond(client, calling, stream=True, **fields))
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    assert events[-1].response.output[0].arguments == call.arguments

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "hot"}
    history = [{"role": "user", "content": "In the"}, call.model_dump(exclude_none=True), result]
    short = respond(client, calling, input=history[:1], max_output_tokens=1)
    answer = respond(client, calling, input=history, max_output_tokens=1)
    assert answer.usage.input_tokens > short.usage.input_tokens + 5


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"input": []}, "input", "request_invalid"),
        ({"input": "xyz " * 500}, "input", "context_length_exceeded"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]},
            "input.0.content.0.type",
            "unsupported_parameter",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "request_invalid"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "request_invalid"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_named(
    openai: Any, client: Any, talking: StoredCheckpoint, fields: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        respond(client, talking, stream=stream, **fields)
    assert (raised.value.param, raised.value.code) == (param, code)
