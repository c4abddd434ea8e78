"""The grammar of a text that has to be a tool call, or whose calls have to be valid. Standard library only.

The grammars are Lark's, as https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md describes them.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from trainer.data.tool_formats import ToolFormat
from trainer.inference.tool_calls import Functions, as_list, listed_values, parameter_schema, referred, value_kinds

_JSON_CALL = '{"name": "NAME", "arguments": '
_BEGINS = {  # what begins a call, and what follows that in each
    "hermes": ("<tool_call>", "\n" + _JSON_CALL, "}\n</tool_call>"),
    "qwen_coder": ("<tool_call>", "\n<function=NAME>\n", "</function>\n</tool_call>"),
    "mistral": ("[TOOL_CALLS]", _JSON_CALL, "}"),
    "mistral_args": ("[TOOL_CALLS]", "NAME[ARGS]", ""),
    "llama": ("<|python_tag|>", _JSON_CALL.replace("arguments", "parameters"), "}"),
}
# Formats in which a text that begins with a bracket consists of calls: the bracket, and what stands before, between and
# after them.
_LISTS = {"mistral": ("[", "[", ", ", "]"), "llama": ("{", "", "; ", "")}
_ANY_TEXT = "(.|\\n)*"
_END_OF_VALUE = "\n</parameter>\n"
# What a schema of a text may say: the rest would not be enforced.
_TEXT_KEYWORDS = {"type", "description", "title", "default", "examples", "$defs", "definitions"}
_TEXT_KEYWORDS |= {"maxLength", "minLength"}
MAX_DEPTH = 8  # of schemas in schemas
_NO_TAG = re.compile(r"[^<>\n]+")


def call_grammar(
    tool_format: ToolFormat,
    functions: Functions,
    options: Mapping[str, Any],
    marks: Mapping[str, int],
    *,
    is_required: bool,
) -> str:
    """The grammar of a text that calls one of the functions; unless `is_required`, that of any text whose calls are
    calls of them, with arguments that are valid for their `parameters`.

    The names of functions are letters, digits, `_`, `.` and `-`. The options are those of the JSON. `marks` are the IDs
    of marks that are special tokens. Raises ValueError for parameters that the format cannot enforce.
    """
    begin, before, after = _BEGINS[tool_format]
    rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(functions)))}"]
    for number, function in enumerate(functions):
        head = _terms(before.replace("NAME", function["name"]), marks)
        if tool_format == "qwen_coder":
            arguments, more = _xml_arguments(f"call_{number}", function.get("parameters"), options)
            rules += more
        else:
            arguments = _json_term({"type": "object", **(function.get("parameters") or {})}, options)
        rules.append(f"call_{number}: {head} {arguments} {_terms(after, marks)}")
    if tool_format in _LISTS:
        bracket, opening, separator, closing = _LISTS[tool_format]
        rules.append(f"calls: {_terms(opening)} call ({_terms(separator)} call)* {_terms(closing)}")
        one = f"{_terms(opening)} call {_terms(closing)}"
        start = one if is_required else "calls | TEXT | head calls"
        text = f"/{_ANY_TEXT}/ & ~/\\s*{re.escape(bracket)}{_ANY_TEXT}/"
    else:
        start = f"{_terms(begin, marks)} call" if is_required else "(head call)* TEXT"
        text = f"/{_ANY_TEXT}/"
    if not is_required:
        is_token = begin in marks
        rules.append(f"head: TEXT {_terms(begin, marks)}" if is_token else f"head[lazy]: TEXT {_terms(begin)}")
    return "\n".join(["%llguidance {}", f"start: {start}", *rules, f"TEXT: {text}", ""])


def _terms(text: str, marks: Mapping[str, int] | None = None) -> str:
    """A text as terms of a rule: the marks that are special tokens by their IDs."""
    parts = re.split(f"({'|'.join(map(re.escape, marks))})", text) if marks else [text]
    return " ".join(
        f"<[{marks[part]}]>" if marks and part in marks else json.dumps(part, ensure_ascii=False)
        for part in parts
        if part
    )


def _json_term(schema: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**schema, "x-guidance": options}, ensure_ascii=False)


# ---- Qwen3-Coder ----------------------------------------------------------------------------------------------------


def _xml_arguments(name: str, schema: Mapping[str, Any] | None, options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The parameters of a call in the order of their schema, and the rules that they need. Without a schema any."""
    properties = (schema or {}).get("properties")
    if schema is None or not isinstance(properties, Mapping):
        any_parameter = f'"<parameter=" /[^<>\\n]+/ ">\\n" {name}_any'
        return f"({any_parameter})*", [_text_rule(f"{name}_any", _ANY_TEXT)]
    terms, rules = [], []
    for number, key in enumerate(properties):
        if not _NO_TAG.fullmatch(key):
            raise ValueError(f"the name of the parameter {key[:50]!r} cannot be written in a tag")
        rule = f"{name}_{number}"
        forms = _alternatives(parameter_schema(schema, key))
        rules.append(f"{rule}: {' | '.join(f'{rule}_{form}' for form in range(len(forms)))}")
        rules += [_value_rule(f"{rule}_{form}", key, one, options) for form, one in enumerate(forms)]
        term = _terms(f"<parameter={key}>\n") + f" {rule}"
        terms.append(term if key in as_list(schema.get("required")) else f"({term})?")
    return " ".join(terms), rules


def _alternatives(schema: Mapping[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    """Schemas of which a value has to be valid for one: references are followed, and unions taken apart."""
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    reference = schema.get("$ref")
    unions = [*as_list(schema.get("anyOf")), *as_list(schema.get("oneOf"))]
    inner = [referred(schema, reference)] if isinstance(reference, str) else unions
    if not inner:
        return [dict(schema)]
    return [
        alternative
        for one in inner
        if isinstance(one, Mapping)
        for alternative in _alternatives({**one, **definitions}, depth + 1)
    ]


def _value_rule(rule: str, key: str, schema: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The rule of a value, with what ends it."""
    kinds = value_kinds(schema)
    if kinds and "string" not in kinds:
        return f"{rule}: {_json_term(schema, options)} {_terms(_END_OF_VALUE)}"
    listed = [value if isinstance(value, str) else json.dumps(value) for value in listed_values(schema)]
    if listed:
        return f"{rule}: {' | '.join(_terms(text + _END_OF_VALUE) for text in listed)}"
    refused = schema.keys() - _TEXT_KEYWORDS
    if refused:
        raise ValueError(f"{min(refused)} of the parameter {key[:50]!r} cannot be enforced in the calls of this model")
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", "")
    return _text_rule(rule, f"(.|\\n){{{shortest},{longest}}}" if shortest or longest else _ANY_TEXT)


def _text_rule(rule: str, text: str) -> str:
    """A rule for a text and what ends it: the end of the value ends it where it first appears."""
    return f"{rule}[lazy]: /{text}/ {_terms(_END_OF_VALUE)}"
