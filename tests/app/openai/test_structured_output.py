"""Answers that are JSON by a schema, and tool calls, through OpenAI's own client."""

import json
from typing import Any

import jsonschema_rs
import pytest

from tests.app.playground.conftest import StoredCheckpoint

QUESTION = [{"role": "user", "content": "In the beginning"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 6},
        "year": {"type": "integer", "minimum": 1, "maximum": 99},
        "words": {"type": "array", "items": {"enum": ["fire", "炉火"]}, "maxItems": 2},
    },
    "required": ["title", "year", "words"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Looks up a word.",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string", "maxLength": 5}},
                "required": ["word"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("look_up", "translate")
]


def ask(client: Any, model: StoredCheckpoint, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": model.id, "messages": QUESTION, "seed": 1, "max_tokens": 150, **fields}
    return client.chat.completions.create(**asked)


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def test_answers_are_valid_for_the_schema(client: Any, talking: StoredCheckpoint) -> None:
    answer = ask(client, talking, response_format=schema_format(SCHEMA), temperature=2, n=4)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema_rs.validate(SCHEMA, json.loads(choice.message.content))


def test_an_answer_in_json_mode_is_an_object_unless_it_is_cut(client: Any, talking: StoredCheckpoint) -> None:
    choice = ask(client, talking, response_format={"type": "json_object"}, temperature=0).choices[0]
    assert choice.message.content.startswith("{")
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": schema_format({"type": "array", "uniqueItems": True})}, "response_format"),
        ({"response_format": schema_format({"type": "integer", "multipleOf": 123_456_789})}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tools": TOOLS}, "tools"),  # which this template leaves out
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ],
)
def test_a_format_or_tool_that_cannot_be_used_is_named(
    openai: Any, client: Any, talking: StoredCheckpoint, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, talking, **fields)
    assert raised.value.param == param


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "translate"}}], ids=["required", "named"]
)
def test_a_required_call_is_one_of_the_tools(client: Any, calling: StoredCheckpoint, choice: Any) -> None:
    fields = {"tools": TOOLS, "tool_choice": choice, "temperature": 1.5}
    answer = ask(client, calling, **fields).choices[0]
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
    (call,) = answer.message.tool_calls
    assert call.type == "function"
    assert call.function.name in (["translate"] if choice != "required" else ["look_up", "translate"])
    jsonschema_rs.validate(TOOLS[0]["function"]["parameters"], json.loads(call.function.arguments))

    chunks = list(ask(client, calling, stream=True, **fields))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [(one.index, one.function) for one in deltas] == [(0, deltas[0].function)]
    assert deltas[0].function.model_dump() == call.function.model_dump()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ""
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_strict_tools_that_are_not_required_have_a_grammar(openai: Any, client: Any, calling: StoredCheckpoint) -> None:
    def strict(schema: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": "look_up", "strict": True, "parameters": schema}}]

    answer = ask(client, calling, tools=strict(TOOLS[0]["function"]["parameters"]), max_tokens=5).choices[0]
    assert answer.finish_reason in ("length", "stop", "tool_calls")
    hostile = {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 123_456_789}}}
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, calling, tools=strict(hostile), max_tokens=5)
    assert raised.value.param == "tools"


def test_a_conversation_with_a_call_and_its_result_goes_through_the_template(
    client: Any, calling: StoredCheckpoint
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "fire"}'}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "hot"},
    ]
    without = ask(client, calling, messages=messages[:1], max_tokens=1).usage.prompt_tokens
    with_call = ask(client, calling, messages=messages, max_tokens=1).usage.prompt_tokens
    with_tools = ask(client, calling, messages=messages, tools=TOOLS, max_tokens=1).usage.prompt_tokens
    assert without + len("<tool_call>look_up fire</tool_call>thot") // 4 < with_call < with_tools
    none = ask(client, calling, messages=messages, tools=TOOLS, tool_choice="none", max_tokens=1)
    assert none.usage.prompt_tokens == with_call
