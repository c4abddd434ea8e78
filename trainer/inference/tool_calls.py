"""Finds the tool calls in a generated text, and the grammar of a text that has to be one. Standard library only."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.data.tool_formats import ToolFormat

BEGIN, END = "<tool_call>", "</tool_call>"
# What a text that is a call begins with; special tokens, such as [TOOL_CALLS], are left out of texts.
_WHOLE = {"mistral": ("[TOOL_CALLS]", "["), "llama": ("<|python_tag|>", "{")}
_MARKS = re.compile(r"\s*(\[TOOL_CALLS\]|<\|python_tag\|>)?")
_ARGUMENTS = {"hermes": "arguments", "mistral": "arguments", "llama": "parameters"}


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


class ToolCallParser:
    """Separates the tool calls from the rest of a text, piece by piece. What only resembles one stays text."""

    def __init__(self, tool_format: ToolFormat) -> None:
        self._format = tool_format
        self._pending = ""
        self._is_inside = False  # hermes: after BEGIN
        self._is_text = False  # the others: the text is no call
        self._has_calls = False

    def push(self, piece: str) -> TextWithCalls:
        """Add a piece. Returns what is certain now."""
        self._pending += piece
        return self._push_tagged() if self._format == "hermes" else self._push_whole()

    def rest(self) -> TextWithCalls:
        """What is left at the end of the text."""
        text, self._pending = self._pending, ""
        if self._format == "hermes":
            calls = parsed_calls(text) if self._is_inside else []
            text = "" if calls else BEGIN + text if self._is_inside else text
            return TextWithCalls("" if self._has_calls and not text.strip() else text, calls)
        calls = [] if self._is_text else parsed_calls(_MARKS.sub("", text, count=1))
        return TextWithCalls("" if calls else text, calls)

    def _push_tagged(self) -> TextWithCalls:
        texts: list[str] = []
        calls: list[ToolCall] = []
        while True:
            before, tag, after = self._pending.partition(END if self._is_inside else BEGIN)
            if not tag:
                break
            if self._is_inside:
                parsed = parsed_calls(before)
                calls += parsed
                self._has_calls = self._has_calls or bool(parsed)
                texts += [] if parsed else [BEGIN + before + END]
            else:
                texts.append(before.rstrip())
            self._is_inside, self._pending = not self._is_inside, after
        if not self._is_inside:
            texts.append(self._safe_text())
        return TextWithCalls("".join(texts), calls)

    def _safe_text(self) -> str:
        """The text before white space and what may be the beginning of a call."""
        end = len(self._pending)
        overlap = next((n for n in range(min(end, len(BEGIN) - 1), 0, -1) if self._pending.endswith(BEGIN[:n])), 0)
        safe = self._pending[: end - overlap].rstrip()
        self._pending = self._pending[len(safe) :]
        return safe

    def _push_whole(self) -> TextWithCalls:
        start = self._pending.lstrip()
        mark, bracket = _WHOLE[self._format]
        may_be_call = start.startswith((mark, bracket)) or mark.startswith(start)
        if may_be_call and not self._is_text:
            return TextWithCalls("", [])
        self._is_text = True
        text, self._pending = self._pending, ""
        return TextWithCalls(text, [])


def parsed_calls(text: str) -> list[ToolCall]:
    """The calls of a JSON text: an object, a list of objects, or objects separated by semicolons; none for others."""
    calls: list[ToolCall] = []
    decoder = json.JSONDecoder(strict=False)
    try:
        rest = text.strip()
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
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(value["name"], text)


def call_grammar(tool_format: ToolFormat, functions: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    """The grammar of a text that calls one of the functions, each with a name of letters and digits and perhaps a JSON
    schema as `parameters`. The options are those of the JSON.
    """
    before, after = {"hermes": (f"{BEGIN}\n", f"\n{END}"), "mistral": ("[", "]"), "llama": ("", "")}[tool_format]
    rules = [f"start: {' | '.join(f'call_{number}' for number in range(len(functions)))}"]
    for number, function in enumerate(functions):
        head = f'{before}{{"name": "{function["name"]}", "{_ARGUMENTS[tool_format]}": '
        schema = {"type": "object", **(function.get("parameters") or {}), "x-guidance": options}
        tail = json.dumps("}" + after)
        rules.append(f"call_{number}: {json.dumps(head)} %json {json.dumps(schema, ensure_ascii=False)} {tail}")
    return "%llguidance {}\n" + "\n".join(rules)
