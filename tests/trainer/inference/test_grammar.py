"""Texts of random tokens within a grammar are valid for its JSON schema, whatever the tokenizer; hostile grammars are
refused in time.
"""

import json
import time
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
import torch

from tests.trainer.tokenizers_of_bases import KINDS, fast
from trainer.data.detokenizer import Detokenizer
from trainer.data.tokenizer_server import TokenizerServer
from trainer.data.tool_formats import MARKS, ToolFormat
from trainer.inference import grammar_check
from trainer.inference.grammar import GrammarConstraint, Vocabulary
from trainer.inference.grammar_check import GrammarRefused
from trainer.inference.sampling import SamplingSettings, choose
from trainer.inference.tool_calls import ToolCallParser
from trainer.inference.tool_grammar import call_grammar

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "size": {"type": "integer", "minimum": -5, "maximum": 500},
        "kind": {"enum": ["龍", "old kettle", None]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 3},
        "next": {"$ref": "#/$defs/inner"},
    },
    "required": ["name", "size", "kind", "tags"],
    "additionalProperties": False,
    "$defs": {"inner": {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False}},
}
LIST = {
    "type": "array",
    "items": {"anyOf": [{"type": "number", "minimum": -9, "maximum": 9}, {"type": "null"}]},
    "minItems": 1,
    "maxItems": 2,
}
MAX_TOKENS = 600
GENERATIVE = ("byte_level", "byte_fallback", "metaspace")


@cache
def vocabulary(kind: str) -> tuple[TokenizerServer, Vocabulary]:
    server = TokenizerServer(fast(KINDS[kind]()))
    return server, Vocabulary([bytes.fromhex(text) for text in server.vocabulary(0, 10**6)])


def random_text(kind: str, schema: dict[str, Any], seed: int) -> str:
    """A text of random tokens. Scores are those of a model with more rows than its tokenizer has tokens."""
    server, tokens = vocabulary(kind)
    end = server._tokenizer.convert_tokens_to_ids("</s>")
    constraint = GrammarConstraint(tokens, grammar_check.json_grammar(schema), {end})
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while len(ids) < MAX_TOKENS:
        scores = torch.randn(tokens.size + 5, generator=generator)
        scores[end] += 3  # so that it would end the text anywhere
        ids.append(choose(scores, SamplingSettings(temperature=0), [], ids, constraint).token)
        if ids[-1] == end:
            break
    assert ids[-1] == end
    if constraint.error:
        raise GrammarRefused(constraint.error)
    detokenizer = Detokenizer(server._tokenizer.backend_tokenizer, server.prompt("The old"))
    return "".join(detokenizer.push(number) for number in ids) + detokenizer.rest()


@pytest.mark.parametrize("kind", GENERATIVE)
@pytest.mark.parametrize("schema", [PERSON, LIST], ids=["object", "array"])
def test_texts_of_random_tokens_are_valid_json_for_the_schema(kind: str, schema: dict[str, Any]) -> None:
    texts = {random_text(kind, schema, seed) for seed in range(12)}
    assert len(texts) > 3
    for text in texts:
        jsonschema_rs.validate(schema, json.loads(text))


def test_a_model_without_tokens_for_json_ends_its_text_with_an_error() -> None:
    with pytest.raises(GrammarRefused):
        random_text("unigram", PERSON, 0)


def test_a_grammar_that_becomes_too_complex_ends_the_text_with_an_error() -> None:
    schema = {"anyOf": [{"type": "object", "properties": {f"k{i}": {} for i in range(60)}} for _ in range(60)]}
    with pytest.raises(GrammarRefused, match="items"):
        random_text("byte_level", schema, 0)


def test_only_tokens_that_end_the_text_follow_a_complete_one() -> None:
    _server, tokens = vocabulary("byte_level")
    constraint = GrammarConstraint(tokens, grammar_check.json_grammar({"const": True}), {1, 2})
    for byte in b"true":
        scores = torch.zeros(tokens.size)
        constraint.mask(scores)
        assert scores[[1, 2]].tolist() == [-torch.inf] * 2
        constraint.accept(next(n for n in range(tokens.size) if vocabulary_bytes("byte_level", n) == bytes([byte])))
    scores = torch.zeros(tokens.size)
    constraint.mask(scores)
    assert scores.isfinite().nonzero().flatten().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("tokens", "error"),
    [([b"1", b"", b"x", b"true"], ""), ([b"x", b"", b"y", b"true"], "the model has no token that may follow")],
)
def test_tokens_that_the_model_has_no_scores_for_do_not_follow(tokens: list[bytes], error: str) -> None:
    constraint = GrammarConstraint(Vocabulary(tokens), grammar_check.json_grammar({"enum": [True, 1]}), {1})
    scores = torch.zeros(3)
    constraint.mask(scores)
    assert scores.isfinite().nonzero().flatten().tolist() == ([1] if error else [0]), "a text without a way on ends"
    assert constraint.error == error


def vocabulary_bytes(kind: str, number: int) -> bytes:
    return bytes.fromhex(vocabulary(kind)[0].vocabulary(number, number + 1)[0])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 123_456_789},  # the library computes for minutes
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "array", "uniqueItems": True},
        {"type": "integer", "multipleOf": 123_456_789, "x-guidance": {"lenient": True}},
        {"$ref": "http://localhost/schema"},
        {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {"const": j}}} for j in range(4)]} for i in range(12)]},
        {"enum": ["x" * 70_000]},
        {"type": "nothing"},
    ],
)
def test_a_schema_that_is_wrong_or_costs_too_much_is_refused_in_time(schema: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(GrammarRefused) as raised:
        grammar_check.check(grammar_check.json_grammar(schema))
    assert 5 < len(str(raised.value)) <= 200
    assert time.process_time() - began < 1, "the work is done in another process"


def test_a_deeply_nested_schema_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    with pytest.raises(GrammarRefused):
        grammar_check.check(grammar_check.json_grammar(schema))


# ---- tool calls -----------------------------------------------------------------------------------------------------

FORMATS: tuple[ToolFormat, ...] = ("hermes", "qwen_coder", "mistral", "mistral_args", "llama")
FUNCTION = {
    "name": "look_up",
    "parameters": {
        "type": "object",
        "properties": {
            "word": {"type": "string", "maxLength": 4},
            "number": {"$ref": "#/$defs/number"},
            "kind": {"enum": ["a", "旧"]},
            "note": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        },
        "required": ["word", "number", "kind"],
        "additionalProperties": False,
        "$defs": {"number": {"type": "integer", "minimum": 1, "maximum": 99}},
    },
}
BEGINS = {
    "hermes": ("Well <tool_call>",),
    "qwen_coder": ("Well <tool_call>",),
    "mistral": ("Well [TOOL_CALLS]", "["),
    "mistral_args": ("Well [TOOL_CALLS]",),
    "llama": ("Well <|python_tag|>", "{"),
}
SPECIAL = {mark: 256 + number for number, mark in enumerate(MARKS)}


def text_with_calls(tool_format: ToolFormat, begin: str, marks: dict[str, int], seed: int) -> str:
    """A text of random tokens after a beginning, in a vocabulary of bytes and marks. Marks that are special tokens have
    no text.
    """
    grammar = call_grammar(tool_format, [FUNCTION], grammar_check.JSON_OPTIONS, marks, is_required=False)
    grammar_check.check(call_grammar(tool_format, [FUNCTION], grammar_check.JSON_OPTIONS, {}, is_required=False))
    end = 256 + len(MARKS)
    tokens = Vocabulary([*(bytes([byte]) for byte in range(256)), *(b"" if marks else m.encode() for m in MARKS), b""])
    constraint = GrammarConstraint(tokens, grammar, {end})
    assert not constraint.error
    names = {number: mark for mark, number in SPECIAL.items()}
    mark = next((mark for mark in MARKS if begin.endswith(mark)), "")
    forced = [*begin.removesuffix(mark).encode(), *([SPECIAL[mark]] if mark else [])]
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while len(ids) < MAX_TOKENS and (not ids or ids[-1] != end):
        scores = torch.randn(tokens.size, generator=generator)
        scores[end] += 6
        if len(ids) < len(forced):
            scores[forced[len(ids)]] = 100.0
        ids.append(choose(scores, SamplingSettings(temperature=0), [], ids, constraint).token)
    assert ids[: len(forced)] == forced
    assert ids[-1] == end
    assert not constraint.error
    parts = (names[number].encode() if number in names else bytes([number]) for number in ids[:-1])
    return b"".join(parts).decode(errors="replace")


@pytest.mark.parametrize(
    ("tool_format", "begin"), [(one, begin) for one in FORMATS for begin in BEGINS[one]], ids=lambda value: value
)
@pytest.mark.parametrize("marks", [{}, SPECIAL], ids=["marks are text", "marks are special"])
def test_calls_that_a_model_begins_are_valid_for_their_schema(
    tool_format: ToolFormat, begin: str, marks: dict[str, int]
) -> None:
    for seed in range(4):
        text = text_with_calls(tool_format, begin, marks, seed)
        parser = ToolCallParser(tool_format, [FUNCTION])
        parts = [parser.push(text), parser.rest()]
        calls = [call for part in parts for call in part.calls]
        assert "".join(part.text for part in parts).startswith("Well" if len(begin) > 1 else "")
        assert calls, text
        for call in calls:
            assert call.name == "look_up"
            jsonschema_rs.validate(FUNCTION["parameters"], json.loads(call.arguments))


@pytest.mark.parametrize("tool_format", FORMATS)
def test_a_text_may_contain_no_call(tool_format: ToolFormat) -> None:
    text = text_with_calls(tool_format, "No call", {}, 1)
    assert text.startswith("No call")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string", "pattern": "a+"}, "pattern of the parameter 'x' cannot be enforced"),
        ({"$ref": "#/$defs/loop"}, "nested too deeply"),
    ],
)
def test_what_qwen3_coders_calls_cannot_enforce_is_refused(schema: dict[str, Any], why: str) -> None:
    parameters = {"properties": {"x": schema}, "$defs": {"loop": {"anyOf": [{"$ref": "#/$defs/loop"}] * 50}}}
    with pytest.raises(ValueError, match=why):
        call_grammar("qwen_coder", [{"name": "f", "parameters": parameters}], {}, {}, is_required=True)
