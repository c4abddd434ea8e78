"""Reads conversations: messages of OpenAI's and ShareGPT's shape, their tool calls, and the tools they may call.

A message is kept as {"role", "content"} with, where it has them: `weight` of an answer; `reasoning_content`;
`tool_calls`, whose arguments are objects, as chat templates expect them; `name` and `tool_call_id` of a tool's message.
`content` is None only together with `tool_calls`. Standard library only.
"""

from collections import Counter
from typing import Any

from worker.sandbox.corpus.fields import BadLine, Fields, Record

ROLES = ("system", "user", "assistant", "tool")
# What others call a role: ShareGPT, LLaMA-Factory, FastChat, older and newer versions of OpenAI's API.
SPEAKERS = {
    **{role: role for role in ROLES},
    "developer": "system",
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "bot", "ai", "claude", "gemini"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool_response", "ipython"), "tool"),
}
MAX_WEIGHT = 1_000_000
# Keys of a message that decide what is learned from it, or are part of its content, and cannot be represented here.
UNSUPPORTED_KEYS = (
    *("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "refusal", "weight", "train"),
    *("train_detail", "loss", "mask", "masked", "images", "image", "videos", "video", "audios", "audio"),
)


def read_messages(turns: Any, field: str, unused: Counter[str]) -> list[Record]:
    """The messages of a list in any order, which chat templates may refuse. Blank system messages are none.

    Counts keys that are not kept. Raises BadLine.
    """
    if type(turns) is not list or not turns:
        raise BadLine("field_not_messages", field=field)
    messages = [_message(turn, number, field, unused) for number, turn in enumerate(turns, start=1)]
    return [message for message in messages if message["content"] or message["role"] != "system"]


def _message(turn: Any, number: int, list_field: str, unused: Counter[str]) -> Record:
    if type(turn) is not dict:
        raise BadLine("message_not_object", number=number)
    fields = Fields(turn, "message", number)
    speaker = fields.take("role" if "role" in turn else "from")
    role = SPEAKERS.get(speaker) if type(speaker) is str else None
    if role is None:
        raise BadLine("role_unknown", number=number, role=str(speaker)[:40])
    content_key = "content" if "content" in turn or "value" not in turn else "value"
    message: Record = {"role": role}
    if speaker in ("function_call", "tool_call"):
        calls = fields.parsed(fields.text(content_key), content_key)
        message |= {"content": None, "tool_calls": _tool_calls(calls, fields)}
    else:
        calls = _taken_calls(fields) if role == "assistant" else []
        message["content"] = _content(fields, content_key, role, bool(calls), unused, list_field)
        if calls:
            message["tool_calls"] = calls
    if role == "assistant":
        reasoning = fields.optional_text("reasoning_content")
        message |= {"reasoning_content": reasoning} if reasoning else {}
        message |= _weight(fields, number)
    if role == "tool":
        message |= {key: fields.text(key) for key in ("name", "tool_call_id") if fields.rest.get(key)}
    for key, value in fields.rest.items():
        if key in UNSUPPORTED_KEYS and value not in (None, "", [], {}) and not _says_context(role, key, value):
            raise BadLine("message_key_unsupported", number=number, key=key, role=role)
        unused[f"{list_field}[].{key}"] += 1
    return message


def _says_context(role: str, key: str, value: Any) -> bool:
    """Whether a key only excludes from the loss a message that is not an answer, which never counts anyway."""
    return role != "assistant" and key in ("weight", "train", "loss") and value in (0, False)


def _content(fields: Fields, key: str, role: str, has_calls: bool, unused: Counter[str], list_field: str) -> str | None:
    value = fields.rest.get(key)
    if has_calls and value is None:
        fields.take(key)
        return None
    if role == "system" and value is None and fields.has(key):
        fields.take(key)
        return ""
    if type(value) is list:
        text = "".join(_part(part, number, fields, key, unused, list_field) for number, part in enumerate(value, 1))
        fields.rest[key] = text
    text = fields.text(key, may_be_blank=has_calls or role in ("system", "tool"))
    return "" if role == "system" and text.isspace() else text


def _part(part: Any, number: int, message: Fields, key: str, unused: Counter[str], list_field: str) -> str:
    if type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str:
        for name in part.keys() - {"type", "text"}:
            unused[f"{list_field}[].{key}[].{name}"] += 1
        return str(part["text"])
    kind = part.get("type") if type(part) is dict else type(part).__name__
    raise message.bad("part", key, part=number, type=str(kind)[:40])


def _weight(fields: Fields, number: int) -> Record:
    """The weight of a message in the loss: `weight` (OpenAI), or `train` (axolotl) for all or nothing."""
    weight, train = fields.take("weight"), fields.take("train")
    if train is not None and (type(train) is not bool or weight is not None):
        raise BadLine("train_invalid", number=number)
    if train is not None:
        return {"weight": int(train)}
    if weight is None:
        return {}
    if type(weight) not in (int, float) or not 0 <= weight <= MAX_WEIGHT:
        raise BadLine("weight_invalid", number=number)
    return {"weight": weight}


# ---- tools ----------------------------------------------------------------------------------------------------------


def _taken_calls(fields: Fields) -> list[Record]:
    """The tool calls of an answer: `tool_calls`, or the one `function_call` of OpenAI's older API."""
    calls, call = fields.take("tool_calls"), fields.take("function_call")
    if calls and call:
        raise BadLine("tool_calls_invalid", number=fields.number)
    return _tool_calls(calls or call, fields) if calls or call else []


def _tool_calls(calls: Any, fields: Fields) -> list[Record]:
    calls = [calls] if type(calls) is dict else calls
    if type(calls) is not list or not calls:
        raise BadLine("tool_calls_invalid", number=fields.number)
    return [_tool_call(call, fields) for call in calls]


def _tool_call(call: Any, fields: Fields) -> Record:
    call = _as_function(call)
    arguments = call["function"].get("arguments") if call else None
    if type(arguments) is str and arguments.strip():
        arguments = fields.parsed(arguments, "tool_calls")
    arguments = {} if arguments in (None, "") else arguments
    if call is None or type(arguments) is not dict:
        raise BadLine("tool_calls_invalid", number=fields.number)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def read_tools(record: Fields) -> list[Record]:
    """The tools of a record: a list, or its JSON text, of functions as OpenAI's API or without the wrapper."""
    key = "tools" if record.has("tools") else "functions"
    tools = record.take(key)
    if type(tools) is str:
        tools = record.parsed(tools, key) if tools.strip() else None
    if tools is not None and type(tools) is not list:
        raise BadLine("tools_invalid", field=key)
    functions = [_as_function(tool) for tool in tools or []]
    if None in functions:
        raise BadLine("tools_invalid", field=key)
    return [function for function in functions if function is not None]


def _as_function(value: Any) -> Record | None:
    """A tool or a tool call with its `function`, around which a bare one gets the wrapper; None if it is neither."""
    if type(value) is dict and "function" not in value and "name" in value:
        value = {"type": "function", "function": value}
    function = value.get("function") if type(value) is dict else None
    has_name = type(function) is dict and type(function.get("name")) is str and function["name"].strip()
    return value if has_name else None
