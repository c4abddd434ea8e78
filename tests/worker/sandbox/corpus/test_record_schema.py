"""Records of every kind: recognized by their keys, kept in one way, refused with a sentence that says what to mend."""

import json
from typing import Any

import pytest

from app.core.json_shapes import Problem
from app.corpora import problems
from app.corpora.record_kinds import KIND_WORDS
from trainer.corpus_kinds import CORPUS_KINDS
from worker.sandbox.corpus.record_schema import KEYS, READERS, BadLine, RecordReader

USER, ANSWER = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "God."}
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
    ({"source": "a", "target": "b", "x": 0}, "seq2seq", {"source": "a", "target": "b"}),
    (
        {"question": "Who?", "choices": ["God", "Nobody"], "answer": "God"},
        "multiple_choice",
        {"question": "Who?", "choices": ["God", "Nobody"], "answer": 0},
    ),
]


@pytest.mark.parametrize(("given", "kind", "kept"), KEPT)
def test_a_record_is_recognized_and_kept_in_one_way(given: dict[str, Any], kind: str, kept: dict[str, Any]) -> None:
    shape = RecordReader(None)

    assert json.loads(shape.document(given)) == kept
    assert shape.kind == kind
    assert json.loads(RecordReader(kind).document(kept)) == kept


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"messages": []}, "must be a list of messages"),
    ("chat", {"messages": ["hi"]}, "Message 1 is not an object"),
    ("chat", {"messages": [USER, {"role": "bot", "content": "x"}]}, "Message 2 has the role “bot”"),
    ("chat", {"messages": [ANSWER]}, "must start with a user message"),
    ("chat", {"messages": [USER, {"role": "system", "content": "x"}]}, "Message 2 is a system message"),
    ("chat", {"messages": [USER]}, "so there is nothing to learn"),
    ("chat", {"messages": [USER, {**ANSWER, "weight": -1}]}, "The weight of message 2 must be a number of at least 0"),
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
def test_what_is_wrong_with_a_record_is_said(kind: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadLine) as caught:
        RecordReader(kind).document(given)
    assert sentence in problems.sentence(Problem(**caught.value.problem))


def test_a_file_holds_one_kind() -> None:
    shape = RecordReader(None)
    shape.document({"text": "a", "label": "b"})
    with pytest.raises(BadLine) as caught:
        shape.document({"text": "a"})
    assert problems.sentence(Problem(**caught.value.problem)).startswith(
        "This record is of the kind text, but the file starts with"
    )


def test_labelled_texts_can_be_read_as_texts() -> None:
    shape = RecordReader("text")

    assert shape.document({"text": "a", "label": "b"}) == "a"


def test_labels_are_counted() -> None:
    shape = RecordReader(None)
    for label in ("b", "a", "b"):
        shape.document({"text": "x", "label": label})

    assert shape.facts() == {"lengths": {"5": 3}, "labels": {"b": 2, "a": 1}, "num_labels": 2}


def test_every_kind_of_record_has_a_reader_and_every_kind_a_name() -> None:
    assert {"text", *READERS} == set(CORPUS_KINDS) == set(KIND_WORDS)
    assert {kind for kind, _keys in KEYS} == set(READERS)
