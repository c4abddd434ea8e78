"""Columns of records: paths into objects, what is said of them, and what they leave out."""

import pytest

from worker.sandbox.corpus.columns import MAX_COLUMNS, Columns, unread_parts, value_at
from worker.sandbox.corpus.record_schema import RecordReader

SQUAD = {
    "id": "56",
    "question": "What is iron?",
    "answers": {"text": ["A metal.", "An element."], "answer_start": [4, 9]},
    "meta": {"url": "https://example.org/iron", "page": 3},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "56"),
        ("answers.text[0]", "A metal."),
        ("answers.text[1]", "An element."),
        ("answers.text[2]", None),
        ("answers.text", ["A metal.", "An element."]),
        ("meta.url", "https://example.org/iron"),
        ("meta.url.host", None),
        ("id[0]", None),
        ("nothing.at.all", None),
        ("answers..text", None),
        ("answers.text[", None),
    ],
)
def test_a_path_leads_into_objects_and_lists(path: str, value: object) -> None:
    assert value_at(SQUAD, path) == value


def test_a_key_with_a_dot_is_a_key() -> None:
    assert value_at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1


def test_what_paths_leave_out_is_listed() -> None:
    assert list(unread_parts(SQUAD, ["question", "answers.text[0]"])) == ["answers.text[1:]", "answers.answer_start"]
    assert list(unread_parts(SQUAD, ["answers"])) == []
    assert list(unread_parts({"turns": ["a", "b"]}, ["turns[0]"])) == ["turns[1:]"]


def test_records_are_read_by_paths() -> None:
    reader = RecordReader("completion", {"prompt": "question", "completion": "answers.text[0]"}, "meta.url")
    document = reader.document(SQUAD)
    assert document == '{"prompt":"What is iron?","completion":"A metal."}'
    assert getattr(document, "group", None) == "https://example.org/iron"
    facts = reader.facts()
    assert facts["unused_keys"] == {"id": 1, "meta": 1, "answers.text[1:]": 1, "answers.answer_start": 1}
    used = {column["name"]: column["used"] for column in facts["columns"]}
    assert used["answers.text[0]"]
    assert not used["answers.answer_start[0]"]


def test_columns_inside_of_others_say_so() -> None:
    reader = RecordReader(None)
    reader.document({"translation": {"en": "iron", "zh": "铁"}, "meta": {"page": 3}})
    assert [(column["name"], column.get("inside")) for column in reader.facts()["columns"]] == [
        *(("translation", None), ("meta", None)),
        *(("translation.en", "translation"), ("translation.zh", "translation"), ("meta.page", "meta")),
    ]


def test_keys_are_listed_before_what_is_inside_of_them() -> None:
    columns = Columns()
    columns.observe({"many": {str(n): n for n in range(MAX_COLUMNS)}, "last": 1})
    names = [column["name"] for column in columns.facts()]
    assert names[:2] == ["many", "last"]
    assert len(names) == MAX_COLUMNS
