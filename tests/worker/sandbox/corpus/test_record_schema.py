"""Records of every kind: recognized by their keys, normalized, rejected with a message that says what to fix."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.json_shapes import Problem
from app.corpora import problems
from app.corpora.record_kinds import KIND_WORDS, LOOKS, USES
from trainer.formats.corpus_kinds import CORPUS_KINDS, MAPPED_FIELDS, TRAINED_KINDS
from worker.sandbox.corpus.fields import BadLine
from worker.sandbox.corpus.record_keys import KEYS
from worker.sandbox.corpus.record_schema import READERS, RecordReader

USER, ANSWER = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "God."}
SILENCE = {"role": "assistant", "content": "Nobody."}
CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}
KEPT: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"messages": [USER, {**ANSWER, "weight": 0}], "id": 1}, "chat", {"messages": [USER, {**ANSWER, "weight": 0}]}),
    (
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "God."}]},
        "chat",
        {"messages": [USER, ANSWER]},
    ),
    ({"prompt": "a", "completion": " b"}, "completion", {"prompt": "a", "completion": " b"}),
    (
        {"instruction": "Add", "input": "1 1", "output": "2"},
        "completion",
        {"prompt": "Add\n\n1 1\n\n", "completion": "2"},
    ),
    ({"instruction": "Speak", "input": "", "output": "So"}, "completion", {"prompt": "Speak\n\n", "completion": "So"}),
    ({"text": "good", "label": 1}, "classification", {"text": "good", "label": "1"}),
    (
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": "Nobody."},
        "preference",
        {"prompt": [USER], "chosen": "God.", "rejected": "Nobody."},
    ),
    (
        {"messages": [{"role": "developer", "content": "Be brief."}, USER, {**ANSWER, "train": False}]},
        "chat",
        {"messages": [{"role": "system", "content": "Be brief."}, USER, {**ANSWER, "weight": 0}]},
    ),
    (
        {"messages": [{"role": "system", "content": None}, {**USER, "weight": 0}, ANSWER], "tools": "[]"},
        "chat",
        {"messages": [USER, ANSWER]},
    ),
    (
        {
            "instruction": "Add",
            "input": "1 1",
            "output": "2",
            "system": "Be brief.",
            "history": [["Who?", "God."]],
        },
        "chat",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                USER,
                ANSWER,
                {"role": "user", "content": "Add\n\n1 1"},
                {"role": "assistant", "content": "2"},
            ]
        },
    ),
    (
        {"system_prompt": "Be brief.", "question": "Who?", "response": "God."},
        "chat",
        {"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER]},
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}]},
        "chat",
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    ),
    (
        {"instruction": "Add", "input": "1 1", "chosen": "2", "rejected": "3"},
        "preference",
        {"prompt": "Add\n\n1 1\n\n", "chosen": "2", "rejected": "3"},
    ),
    (
        {"system": "Be brief.", "prompt": "Who?", "chosen": "God.", "rejected": "Nobody."},
        "preference",
        {"prompt": [{"role": "system", "content": "Be brief."}, USER], "chosen": "God.", "rejected": "Nobody."},
    ),
    (
        {"prompt": "Who?", "chosen": [USER, ANSWER, USER, ANSWER], "rejected": [ANSWER, USER, SILENCE]},
        "preference",
        {"prompt": [USER, ANSWER, USER], "chosen": "God.", "rejected": "Nobody."},
    ),
    (
        {"chosen": "Human: Who?\n\nAssistant: God.", "rejected": "Human: Who?\n\nAssistant: Nobody."},
        "preference",
        {"prompt": "Human: Who?\n\nAssistant:", "chosen": " God.", "rejected": " Nobody."},
    ),
    ({"source": "a", "target": "b", "x": 0}, "seq2seq", {"source": "a", "target": "b"}),
    (
        {"question": "Who?", "choices": ["God", "Nobody"], "answer": "God"},
        "multiple_choice",
        {"question": "Who?", "choices": ["God", "Nobody"], "answer": 0},
    ),
]


@pytest.mark.parametrize(("given", "kind", "kept"), KEPT)
def test_a_record_is_recognized_and_normalized(given: dict[str, Any], kind: str, kept: dict[str, Any]) -> None:
    shape = RecordReader(None)

    assert json.loads(shape.document(given)) == kept
    assert shape.kind == kind
    assert json.loads(RecordReader(kind).document(kept)) == kept


def called(**function: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}]}


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("chat", called(), "The tool calls of message 2 must be a list of functions"),
    ("chat", called(name="f", arguments="[]"), "The tool calls of message 2 must be a list of functions"),
    ("chat", called(name="f", arguments="{"), "In message 2, the value of “tool_calls” is not valid JSON."),
    ("chat", called(name="f", arguments='{"a": "\\u0000"}'), "In message 2, the value of “tool_calls” has a NUL"),
    ("chat", called(name="f", arguments={"\ud83d": 1}), "In message 2, the value of “tool_calls” has an unpaired"),
    ("chat", called(name="f", arguments='{"a": 1e400}'), "“tool_calls” contains a number that is not finite"),
    ("chat", {"messages": [USER, ANSWER], "tools": [{}]}, "“tools” must be a list of functions"),
    ("chat", {"messages": [USER, ANSWER], "tools": [{"name": "a\0"}]}, "The value of “tools” has a NUL character."),
    ("chat", {"messages": [USER, ANSWER], "tools": "{"}, "The value of “tools” is not valid JSON."),
    ("chat", {"messages": [USER, ANSWER], "system": "a\0"}, "The value of “system” has a NUL character."),
    ("chat", {"messages": [{"role": "system", "content": "a"}, USER, ANSWER], "system": "b"}, "Remove one of them"),
    ("chat", {"messages": [USER, {**ANSWER, "images": ["a.png"]}]}, "Message 2 (assistant) has “images”"),
    ("chat", {"messages": [{**USER, "weight": 1}, ANSWER]}, "Message 1 (user) has “weight”"),
    ("chat", {"messages": [{**USER, "tool_calls": [CALL]}, ANSWER]}, "Message 1 (user) has “tool_calls”"),
    ("chat", {"messages": [USER, {**ANSWER, "weight": True}]}, "The weight of message 2 must be a number"),
    ("chat", {"messages": [USER, {**ANSWER, "weight": 1, "train": True}]}, "without a weight beside it"),
    (
        "chat",
        {"messages": [USER, {**ANSWER, "content": [{"type": "image"}]}]},
        "part 1 of “content” has the type image",
    ),
    ("chat", {"messages": [USER, ANSWER], "history": [["a", "b"]]}, "The record has “history”"),
    ("chat", {"messages": [USER, ANSWER], "images": ["a.png"]}, "The record has “images”"),
    ("chat", {"messages": [USER, ANSWER], "label": False}, "The answer is judged bad (“label”)"),
    ("chat", {"instruction": "a", "output": "b", "history": ["c"]}, "“history” must be a list of pairs"),
    ("completion", {"prompt": "a", "completion": "b", "kto_tag": "fine"}, "“kto_tag” judges a single answer"),
    ("completion", {"prompt": "a", "completion": "b", "kto_tag": False}, "The answer is judged bad (“kto_tag”)"),
    ("unpaired", {"prompt": "a", "completion": "b", "label": "fine"}, "“label” must be true or false"),
    ("unpaired", {"messages": [USER], "label": True}, "“completion” ends with a message of the role user."),
    ("completion", {"question": "a", "answers": {"text": []}}, "The question has no answer"),
    ("completion", {"prompt": "a", "completion": "b", "system": "c"}, "Read the file as conversations."),
    ("completion", {"prompt": [USER], "completion": [ANSWER]}, "The value of “prompt” is a list."),
    ("completion", {"prompt": "a", "context": "b", "completion": "c"}, "The record has “context”"),
    ("preference", {"prompt": "Who?", "chosen": [USER], "rejected": [SILENCE]}, "“chosen” ends with a message"),
    ("preference", {"prompt": "When?", "chosen": [USER, ANSWER], "rejected": [USER, SILENCE]}, "those of the prompt"),
    ("preference", {"chosen": [ANSWER], "rejected": [SILENCE]}, "must start with the same messages"),
    ("preference", {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "no preference to learn"),
    ("preference", {"chosen": "God.", "rejected": "Nobody."}, "has no field “prompt”"),
    ("preference", {"prompt": "a", "chosen": "b\ud83d", "rejected": "c"}, "“chosen” has an unpaired surrogate"),
    ("multiple_choice", {"question": "a", "choices": ["b", "c\0"], "answer": 0}, "“choices” has a NUL character"),
    ("classification", {"text": "a", "label": "b\0"}, "“label” has a NUL character"),
    ("chat", {"messages": []}, "must be a list of messages"),
    ("chat", {"messages": ["hi"]}, "Message 1 is not an object"),
    ("chat", {"messages": [USER, {"role": "poet", "content": "x"}]}, "Message 2 has the role “poet”"),
    ("chat", {"messages": [USER]}, "so there is nothing to learn"),
    ("chat", {"messages": [USER, {**ANSWER, "weight": -1}]}, "The weight of message 2 must be a number from 0 to"),
    ("chat", {"messages": [USER, {"role": "assistant", "content": None}]}, "“content” is not a string"),
    ("completion", {"prompt": "a"}, "has no field “completion”"),
    ("completion", {"prompt": "a", "completion": " "}, "“completion” is empty"),
    ("completion", {"prompt": "a\0", "completion": "b"}, "“prompt” has a NUL character"),
    ("classification", {"text": "a"}, "has no field “label”"),
    ("classification", {"text": "a", "label": 1.5}, "must be a non-empty string"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "no preference to learn"),
    ("seq2seq", {"source": "a", "target": 1}, "“target” is not a string"),
    ("multiple_choice", {"question": "a", "choices": ["b", "b"], "answer": 0}, "two different strings"),
    ("multiple_choice", {"question": "a", "choices": ["b", "c"], "answer": 2}, "“answer” must be one of the choices"),
]


@pytest.mark.parametrize(("kind", "given", "sentence"), BAD)
def test_errors_in_a_record_are_described(kind: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadLine) as caught:
        RecordReader(kind).document(given)
    assert sentence in problems.sentence(Problem(**caught.value.problem))


@given(roles=st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), min_size=1, max_size=8))
def test_a_conversation_is_kept_in_whatever_order_it_has(roles: list[str]) -> None:
    messages = [{"role": role, "content": f"{number}"} for number, role in enumerate(roles)]
    if "assistant" in roles:
        assert json.loads(RecordReader(None).document({"messages": messages})) == {"messages": messages}
    else:
        with pytest.raises(BadLine, match="messages_unanswered"):
            RecordReader(None).document({"messages": messages})


def test_a_file_has_records_of_one_kind() -> None:
    shape = RecordReader(None)
    shape.document({"text": "a", "label": "b"})
    with pytest.raises(BadLine) as caught:
        shape.document({"text": "a"})
    assert problems.sentence(Problem(**caught.value.problem)).startswith(
        "This record is of the kind Text, but the file starts with Texts with labels."
    )


def test_labelled_texts_can_be_read_as_texts() -> None:
    shape = RecordReader("text")

    assert shape.document({"text": "a", "label": "b"}) == "a"


def test_labels_are_counted() -> None:
    shape = RecordReader(None)
    for label in ("b", "a", "b"):
        shape.document({"text": "x", "label": label})

    facts = shape.facts()
    assert [(column["name"], column["used"]) for column in facts.pop("columns")] == [("text", True), ("label", True)]
    assert facts == {"lengths": {"5": 3}, "unused_keys": {}, "labels": {"b": 2, "a": 1}, "num_labels": 2}


def test_every_kind_of_record_has_a_reader_and_a_name() -> None:
    assert {"text", *READERS} == set(CORPUS_KINDS) == set(KIND_WORDS)
    assert {kind for kind, _keys in KEYS} == {*CORPUS_KINDS} - {
        "unpaired"
    }  # which has the keys of others and a judgment
    assert {kind for kind, *_fields in MAPPED_FIELDS} == LOOKS.keys() == set(CORPUS_KINDS)
    assert set(CORPUS_KINDS) - TRAINED_KINDS == set(USES)


@pytest.mark.parametrize("keys", [("input", "target"), ("human", "bot"), ("a\0", "b\ud83d")])
def test_unknown_keys_are_reported(keys: tuple[str, str]) -> None:
    with pytest.raises(BadLine) as caught:
        RecordReader(None).document(dict.fromkeys(keys, "x"))
    names = ", ".join(keys).replace("\0", "\\u0000").replace("\ud83d", "\\ud83d")
    sentence = problems.sentence(Problem(**caught.value.problem))
    assert sentence.startswith(f"These keys were found: {names}. Which are prompt and answer?")


def test_conversations_mix_with_completions_only_without_extra_fields() -> None:
    shape = RecordReader(None)
    shape.document({"instruction": "a", "output": "b"})
    shape.document({"instruction": "a", "output": "b", "system": "", "history": []})
    with pytest.raises(BadLine) as caught:
        shape.document({"instruction": "a", "output": "b", "system": "c"})
    assert caught.value.problem == {"code": "key_of_chat", "key": "system"}
    assert json.loads(RecordReader("chat").document({"instruction": "Who?", "output": "God."})) == {
        "messages": [USER, ANSWER]
    }


def test_unused_keys_are_counted_by_path() -> None:
    shape = RecordReader(None)
    part = {"type": "text", "text": "Who?", "cache_control": {}}
    for number in range(3):
        message = {"role": "user", "content": [part, part], "id": number}
        shape.document({"messages": [message, {**ANSWER, "name": None}], "id": number, "input": None})
    with pytest.raises(BadLine):
        shape.document({"messages": [USER], "source": "of a record that is refused"})

    assert shape.facts()["unused_keys"] == {
        "messages[].content[].cache_control": 6,
        "messages[].id": 3,
        "messages[].name": 3,
        "id": 3,
        "input": 3,
    }


SYSTEM = {"role": "system", "content": "Be kind."}
SHAPES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "unpaired",
        {"prompt": "Who?", "completion": "God.", "label": True},
        {"prompt": "Who?", "completion": "God.", "label": True},
    ),
    (
        "unpaired",
        {"prompt": [USER], "completion": [ANSWER], "label": False},
        {"prompt": [USER], "completion": "God.", "label": False},
    ),
    (
        "unpaired",
        {"messages": [USER, ANSWER], "system": "Be kind.", "kto_tag": "true"},
        {"prompt": [SYSTEM, USER], "completion": "God.", "label": True},
    ),
    (
        "completion",
        {"context": "Light was.", "question": "Who?", "answers": {"text": ["God.", "He."], "answer_start": [0, 9]}},
        {"prompt": "Light was.\n\nWho?", "completion": "God."},
    ),
    ("completion", {"question": "Who?", "answers": ["God."]}, {"prompt": "Who?", "completion": "God."}),
    (
        "completion",
        {"question": "Who?", "answer": "God.", "context": "Light was."},
        {"prompt": "Light was.\n\nWho?", "completion": "God."},
    ),
    ("seq2seq", {"translation": {"en": "light", "zh": "光"}}, {"source": "light", "target": "光"}),
    ("seq2seq", {"zh": "光", "en": "light", "id": 3}, {"source": "光", "target": "light"}),
    ("seq2seq", {"src": "light", "tgt": "光"}, {"source": "light", "target": "光"}),
    ("chat", {"conversation": [USER, ANSWER]}, {"messages": [USER, ANSWER]}),
    ("chat", {"messages": json.dumps([USER, ANSWER])}, {"messages": [USER, ANSWER]}),
    (
        "chat",
        {"conversations": [{"from": "prompter", "value": "Who?"}, {"from": "ai", "value": "God."}]},
        {"messages": [USER, ANSWER]},
    ),
]


@pytest.mark.parametrize(("kind", "record", "kept"), SHAPES)
def test_shapes_of_the_ecosystem_are_read(kind: str, record: dict[str, Any], kept: dict[str, Any]) -> None:
    shape = RecordReader(None)
    assert json.loads(shape.document(record)) == kept
    facts = shape.facts()
    read = {column["name"] for column in facts["columns"] if column["used"]}
    assert (shape.kind, read | facts["unused_keys"].keys() - {"answers[1:]"}) == (kind, record.keys())


def test_the_first_translation_decides_the_direction() -> None:
    shape = RecordReader(None)
    shape.document({"translation": {"en": "light", "zh": "光"}})
    assert json.loads(shape.document({"translation": {"zh": "天", "en": "sky"}})) == {"source": "sky", "target": "天"}
    with pytest.raises(BadLine) as caught:
        shape.document({"translation": {"en": "sky", "fr": "ciel"}})
    assert caught.value.problem["code"] == "languages_differ"


def test_columns_mapped_by_hand_are_read_and_no_others() -> None:
    shape = RecordReader("completion", {"prompt": "Frage", "completion": "Antwort"})
    record = {"Frage": "Who?", "Antwort": "God.", "prompt": "not this", "weight": 3, "context": ["nor this"]}
    assert json.loads(shape.document(record)) == {"prompt": "Who?", "completion": "God."}
    facts = shape.facts()
    assert facts["unused_keys"] == {"prompt": 1, "weight": 1, "context": 1}
    assert facts["columns"][0] == {
        "name": "Frage",
        "types": ["string"],
        "num_records": 1,
        "sample": "Who?",
        "used": True,
    }
    assert facts["columns"][4]["sample"] == '["nor this"]'
    with pytest.raises(BadLine) as caught:
        shape.document({"Frage": "Who?"})
    assert caught.value.problem == {"code": "field_missing", "field": "completion"}
