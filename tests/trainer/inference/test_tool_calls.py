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
LLAMA = "; ".join(f'{{"name": "{n}", "parameters": {a}}}' for n, a in CALLS)
TEXTS: list[tuple[ToolFormat, str, str, int]] = [  # format, text, the text beside the calls, their number
    ("hermes", "I look." + HERMES + "\n", "I look.", 2),
    ("hermes", HERMES.removesuffix("\n</tool_call>"), "", 2),  # an end of text in place of the last tag
    ("hermes", "a < b <tool_ca", "a < b <tool_ca", 0),
    ("hermes", "x <tool_call>no JSON</tool_call> y", "x<tool_call>no JSON</tool_call> y", 0),
    ("hermes", 'cut <tool_call>{"name": "look", "argu', 'cut<tool_call>{"name": "look", "argu', 0),
    ("mistral", "[TOOL_CALLS]" + MISTRAL, "", 2),
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
    parser = ToolCallParser(kind)
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


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if tools %}<tool_call>\n{'name': <function-name>}</tool_call>{% endif %}", "hermes"),
        ("{% if tools %}<tool_call>\n<function=name>{% endif %}", None),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}{{ '[TOOL_CALLS] [' }}", "mistral"),
        ('{% if tools %}{{ \'{"name": function name, "parameters": dictionary of arguments}.\' }}{% endif %}', "llama"),
        ("{% for message in messages %}<tool_call>{% endfor %}", None),
        ("{% if tools %}{{ tools }}{% endif %}", None),
        (None, None),
    ],
)
def test_the_format_is_that_of_the_template(template: str | None, expected: str | None) -> None:
    assert tool_format(template) == expected
