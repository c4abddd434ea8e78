"""Finds the tool calls in a generated text. Standard library only."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.data.tool_formats import ToolFormat

_MARK = re.compile(r"\s*(<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>)?")
_NAMED_CALL = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\])?", re.ASCII)
_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)

Functions = Sequence[Mapping[str, Any]]  # each with a name and perhaps a JSON schema as `parameters`


@dataclass(frozen=True)
class ToolCall:
    """A function that the model calls. The arguments are a JSON text."""

    name: str
    arguments: str


@dataclass
class TextWithCalls:
    """The next part of a text."""

    text: str
    calls: list[ToolCall]


@dataclass(frozen=True)
class _Syntax:
    """How calls are written. `parsed` gets them with what begins them, without what ends them."""

    begins: tuple[str, ...]
    parsed: Callable[[str, Functions], list[ToolCall]]
    end: str = ""  # empty: the end of the text
    bracket: str = ""  # what a text that consists of calls may begin with in place of a mark


class ToolCallParser:
    """Separates the tool calls from the rest of a text, piece by piece. What only resembles one stays text.

    `functions` say which values of Qwen3-Coder's calls are texts, and which JSON.
    """

    def __init__(self, tool_format: ToolFormat, functions: Functions = ()) -> None:
        self._syntax = _SYNTAXES[tool_format]
        self._functions = functions
        self._pending = ""
        self._is_inside = False  # a call, from what begins it
        self._is_start = True  # nothing but white space has come yet
        self._has_calls = False

    def push(self, piece: str) -> TextWithCalls:
        """Add a piece. Returns what is certain now."""
        self._pending += piece
        texts: list[str] = []
        calls: list[ToolCall] = []
        while self._end_of_part(texts, calls):
            pass
        if not self._is_inside:
            texts.append(self._safe_text())
        return TextWithCalls("".join(texts), calls)

    def rest(self) -> TextWithCalls:
        """What is left at the end of the text."""
        text, self._pending = self._pending, ""
        calls = self._parsed(text) if self._is_inside else []
        return TextWithCalls("" if calls or (self._has_calls and not text.strip()) else text, calls)

    def _end_of_part(self, texts: list[str], calls: list[ToolCall]) -> bool:
        """Move a complete call, or the text before one, out of what is pending. Returns whether there was one."""
        if not self._is_inside:
            place = self._begin()
            if place is None:
                return False
            texts.append(self._pending[:place].rstrip())
            self._pending = self._pending[place:]
            self._is_inside, self._is_start = True, False
            return True
        end = self._syntax.end
        place = self._pending.find(end, 1) if end else -1
        if place < 0:
            return False
        call, rest = self._pending[:place], self._pending[place:]
        parsed = self._parsed(call)
        calls += parsed
        self._is_inside = end in self._syntax.begins
        after = 0 if self._is_inside else len(end)
        texts += [] if parsed else [call + rest[:after]]
        self._pending = rest[after:]
        return True

    def _begin(self) -> int | None:
        """Where the first call begins in what is pending."""
        start = self._pending.lstrip()
        if self._is_start and self._syntax.bracket and start.startswith(self._syntax.bracket):
            return 0
        places = [place for begin in self._syntax.begins if (place := self._pending.find(begin)) >= 0]
        return min(places, default=None)

    def _parsed(self, text: str) -> list[ToolCall]:
        calls = self._syntax.parsed(text, self._functions)
        self._has_calls = self._has_calls or bool(calls)
        return calls

    def _safe_text(self) -> str:
        """The text before white space and what may be the beginning of a call."""
        overlap = max(_overlap(self._pending, begin) for begin in self._syntax.begins)
        safe = self._pending[: len(self._pending) - overlap].rstrip()
        self._is_start = self._is_start and not safe
        self._pending = self._pending[len(safe) :]
        return safe


def _overlap(text: str, begin: str) -> int:
    """The length of the longest end of the text that `begin` starts with, but is longer than."""
    return next((n for n in range(min(len(text), len(begin) - 1), 0, -1) if text.endswith(begin[:n])), 0)


# ---- the formats ----------------------------------------------------------------------------------------------------


def parsed_calls(text: str, _functions: Functions = ()) -> list[ToolCall]:
    """The calls of a JSON text, perhaps after a mark: an object, a list of objects, or objects separated by semicolons;
    none for others.
    """
    calls: list[ToolCall] = []
    decoder = json.JSONDecoder(strict=False)
    try:
        rest = _MARK.sub("", text, count=1).strip()
        while rest:
            value, end = decoder.raw_decode(rest)
            calls += [_call(one) for one in (value if isinstance(value, list) else [value])]
            rest = rest[end:].strip().removeprefix(";").strip()
    except (ValueError, RecursionError):
        return []
    return calls


def _call(value: Any) -> ToolCall:
    """Raises ValueError for what is no call."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("no name")
    arguments = value.get("arguments", value.get("parameters", {}))
    return ToolCall(value["name"], arguments if isinstance(arguments, str) else _json(arguments))


def _named_call(text: str, _functions: Functions) -> list[ToolCall]:
    """`[TOOL_CALLS]name[ARGS]{...}`, with `[CALL_ID]id` after the name before version 13 of Mistral's tokenizers."""
    text = _MARK.sub("", text, count=1)
    head = _NAMED_CALL.match(text)
    try:
        arguments = json.loads(text[head.end() :], strict=False) if head else None
    except (ValueError, RecursionError):
        return []
    if head is None or not isinstance(arguments, dict | None):
        return []
    return [ToolCall(head[1], _json(arguments or {}))]


def _xml_calls(text: str, functions: Functions) -> list[ToolCall]:
    """The calls of Qwen3-Coder, whose values are texts unless the schema of the function says otherwise:
    https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct/blob/main/chat_template.jinja
    """
    schemas = {function["name"]: function.get("parameters") or {} for function in functions}
    calls: list[ToolCall] = []
    for name, body in _FUNCTION.findall(text):
        schema = schemas.get(name, {})
        values = {key: _value(value, parameter_schema(schema, key)) for key, value in _PARAMETER.findall(body)}
        calls.append(ToolCall(name, _json(values)))
    return calls


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """A value of Qwen3-Coder as JSON. Templates write Python's names for constants, too."""
    kinds = value_kinds(schema)
    if text == "null" and "null" in kinds:
        return None
    if not kinds or "string" in kinds:
        return text
    constants = {"True": True, "False": False, "None": None}
    try:
        return constants[text] if text in constants else json.loads(text)
    except (ValueError, RecursionError):
        return text


def parameter_schema(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schema of a parameter, with the definitions that it may refer to. Empty if there is none."""
    properties = schema.get("properties")
    own = properties.get(name) if isinstance(properties, dict) else None
    if not isinstance(own, dict):
        return {}
    return {**own, **{key: schema[key] for key in ("$defs", "definitions") if key in schema}}


def value_kinds(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema allows by name; none if it does not say."""
    kinds: set[str] = set()
    references: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, Mapping):
            continue
        named = one.get("type")
        if named is None:
            kinds |= {_KINDS.get(type(value), "null") for value in listed_values(one)}
        else:
            kinds |= {named} if isinstance(named, str) else set(map(str, as_list(named)))
        waiting += [each for key in ("anyOf", "oneOf", "allOf") for each in as_list(one.get(key))]
        reference = one.get("$ref")
        if isinstance(reference, str) and reference not in references:
            references.add(reference)
            waiting.append(referred(schema, reference))
    return kinds


_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def listed_values(schema: Mapping[str, Any]) -> list[Any]:
    """The values of a schema that lists them."""
    return [schema["const"]] if "const" in schema else as_list(schema.get("enum"))


def as_list(value: Any) -> list[Any]:
    """A value that should be a list; an empty one if it is not."""
    return value if isinstance(value, list) else []


def referred(schema: Any, reference: str) -> Any:
    """What a reference such as `#/$defs/a` of a schema means; None if there is nothing."""
    for key in reference.removeprefix("#/").split("/"):
        schema = schema.get(key) if isinstance(schema, Mapping) else None
    return schema


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_SYNTAXES: dict[ToolFormat, _Syntax] = {
    "hermes": _Syntax(("<tool_call>",), parsed_calls, end="</tool_call>"),
    # The model sometimes forgets the first tag.
    "qwen_coder": _Syntax(("<tool_call>", "<function="), _xml_calls, end="</tool_call>"),
    "mistral": _Syntax(("[TOOL_CALLS]",), parsed_calls, bracket="["),
    "mistral_args": _Syntax(("[TOOL_CALLS]",), _named_call, end="[TOOL_CALLS]"),
    "llama": _Syntax(("<|python_tag|>",), parsed_calls, bracket="{"),
}
