"""Tool calls are found in texts of each format, in whatever pieces these arrive; what only resembles one is text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.tool_formats import ToolFormat, tool_format
from trainer.inference.tool_calls import ToolCall, ToolCallParser

CALLS = [("look", '{"place": "旧 \\"x\\" </a>", "n": [1, {"b": null}]}'), ("wait", "{}")]
HERMES = "".join(f'\n<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>' for n, a in CALLS)
MISTRAL = "[" + ", ".join(f'{{"name": "{n}", "arguments": {a}}}' for n, a in CALLS) + "]"
MISTRAL_ARGS = "".join(f"[TOOL_CALLS]{n}[ARGS]{a}" for n, a in CALLS)
MISTRAL_IDS = "".join(f"[TOOL_CALLS]{n}[CALL_ID]abcDEF123[ARGS]{a}" for n, a in CALLS)
XML = """
<tool_call>
<function=look>
<parameter=place>
旧 "x" </a>
</parameter>
<parameter=n>
[1, {"b": null}]
</parameter>
</function>
</tool_call>
<tool_call>
<function=wait>
</function>
</tool_call>"""
FUNCTIONS = [
    {"name": "look", "parameters": {"properties": {"place": {"type": "string"}, "n": {"type": "array"}}}},
    {"name": "wait"},
]
LLAMA = "; ".join(f'{{"name": "{n}", "parameters": {a}}}' for n, a in CALLS)
TEXTS: list[tuple[ToolFormat, str, str, int]] = [  # format, text, the text beside the calls, their number
    ("hermes", "I look." + HERMES + "\n", "I look.", 2),
    ("hermes", HERMES.removesuffix("\n</tool_call>"), "", 2),  # an end of text in place of the last tag
    ("hermes", "a < b <tool_ca", "a < b <tool_ca", 0),
    ("hermes", "x <tool_call>no JSON</tool_call> y", "x<tool_call>no JSON</tool_call> y", 0),
    ("hermes", 'cut <tool_call>{"name": "look", "argu', 'cut<tool_call>{"name": "look", "argu', 0),
    ("qwen_coder", "I look." + XML, "I look.", 2),
    ("qwen_coder", XML.replace("\n<tool_call>\n", "", 1), "", 2),  # the model sometimes forgets the first tag
    ("qwen_coder", XML.removesuffix("\n</tool_call>"), "", 2),
    ("qwen_coder", "a <function of x", "a <function of x", 0),
    ("qwen_coder", "<tool_call>\n<function=look>\n<para", "<tool_call>\n<function=look>\n<para", 0),
    ("mistral_args", "I look." + MISTRAL_ARGS, "I look.", 2),
    ("mistral_args", MISTRAL_IDS, "", 2),
    ("mistral_args", MISTRAL_ARGS.replace("[ARGS]", ""), "", 2),
    ("mistral_args", "[TOOL_CALLS]look[ARGS]{", "[TOOL_CALLS]look[ARGS]{", 0),
    ("mistral_args", "See [TOOLS] and [1].", "See [TOOLS] and [1].", 0),
    ("mistral", "[TOOL_CALLS]" + MISTRAL, "", 2),
    ("mistral", "I look.[TOOL_CALLS] " + MISTRAL, "I look.", 2),
    ("mistral", " " + MISTRAL, "", 2),
    ("mistral", "[1] is a source.", "[1] is a source.", 0),
    ("mistral", "No " + MISTRAL, "No " + MISTRAL, 0),
    ("llama", "<|python_tag|>" + LLAMA, "", 2),
    ("llama", LLAMA, "", 2),
    ("llama", '{"name": 5}', '{"name": 5}', 0),
    ("llama", "A text.", "A text.", 0),
    ("llama", "[" * 100_000, "[" * 100_000, 0),
]


def parsed(kind: ToolFormat, pieces: list[str]) -> tuple[str, list[ToolCall]]:
    parser = ToolCallParser(kind, FUNCTIONS)
    parts = [*(parser.push(piece) for piece in pieces), parser.rest()]
    return "".join(part.text for part in parts), [call for part in parts for call in part.calls]


@pytest.mark.parametrize(("kind", "text", "rest", "num_calls"), TEXTS, ids=range(len(TEXTS)))
@given(data=st.data())
def test_calls_are_the_same_in_any_pieces(
    kind: ToolFormat, text: str, rest: str, num_calls: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=20)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    beside, calls = parsed(kind, pieces)
    assert (beside, [call.name for call in calls]) == (rest, [name for name, _ in CALLS[:num_calls]])
    for call, (_name, arguments) in zip(calls, CALLS, strict=False):
        assert json.loads(call.arguments) == json.loads(arguments)


def test_text_before_a_call_arrives_before_the_call_is_complete() -> None:
    parser = ToolCallParser("hermes")
    assert parser.push("I look. <tool").text == "I look."
    assert parser.push(" is not a tag").text == " <tool is not a tag"


# The examples of the formats' authors: Qwen3-Coder's chat template, and mistral-common's tokenizer 13.
EXAMPLES: list[tuple[ToolFormat, str, list[tuple[str, dict[str, str]]]]] = [
    (
        "qwen_coder",
        "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
        "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
        "</parameter>\n</function>\n</tool_call>",
        [
            (
                "example_function_name",
                {
                    "example_parameter_1": "value_1",
                    "example_parameter_2": "This is the value for the second parameter\nthat can span\nmultiple lines",
                },
            )
        ],
    ),
    (
        "mistral_args",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Zürich", "unit": "c"}[TOOL_CALLS]now[ARGS]null',
        [("get_weather", {"city": "Zürich", "unit": "c"}), ("now", {})],
    ),
]


@pytest.mark.parametrize(("kind", "text", "expected"), EXAMPLES)
def test_the_examples_of_the_formats_authors_are_read(
    kind: ToolFormat, text: str, expected: list[tuple[str, dict[str, str]]]
) -> None:
    beside, calls = parsed(kind, [text])
    assert (beside, [(call.name, json.loads(call.arguments)) for call in calls]) == ("", expected)


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "integer"}, "5", 5),
        ({"type": ["number", "null"]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"$ref": "#/$defs/size"}, "5", 5),
        ({"enum": [1, 2]}, "2", 2),
        ({"type": "boolean"}, "True", True),  # as Python writes it
        ({"type": "object"}, "no JSON", "no JSON"),
        ({"anyOf": 5, "type": {}, "enum": 5}, "5", "5"),  # no schema
        ({"$ref": "#/$defs/loop"}, "5", "5"),
    ],
)
def test_values_of_qwen3_coder_are_texts_unless_the_schema_says_otherwise(
    schema: dict[str, object], text: str, expected: object
) -> None:
    definitions = {"size": {"type": "integer"}, "loop": {"anyOf": [{"$ref": "#/$defs/loop"}] * 100}}
    function = {"name": "f", "parameters": {"properties": {"x": schema}, "$defs": definitions}}
    parser = ToolCallParser("qwen_coder", [function])
    calls = parser.push(f"<tool_call><function=f><parameter=x>\n{text}\n</parameter></function></tool_call>").calls
    assert json.loads(calls[0].arguments) == {"x": expected}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if tools %}<tool_call>\n{'name': <function-name>}</tool_call>{% endif %}", "hermes"),
        ("{% if tools %}<tool_call>\n<function=name>{% endif %}", "qwen_coder"),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", "mistral_args"),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}{{ '[TOOL_CALLS] [' }}", "mistral"),
        ('{% if tools %}{{ \'{"name": function name, "parameters": dictionary of arguments}.\' }}{% endif %}', "llama"),
        ("{% for message in messages %}<tool_call>{% endfor %}", None),
        ("{% if tools %}{{ tools }}{% endif %}", None),
        (None, None),
    ],
)
def test_the_format_is_that_of_the_template(template: str | None, expected: str | None) -> None:
    assert tool_format(template) == expected
