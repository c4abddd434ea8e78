"""Reads the records in the answer of a model, and says what is wrong with an answer that cannot be used."""

import json
import re
from typing import Any

from app.core.i18n import gettext_noop
from app.core.names import printable_text
from app.core.synthetic_shapes import RecordSettings

# Why an answer, or a record of it, could not be used.
PROBLEMS = {
    "cut": gettext_noop("The answer ended at the limit of tokens. Raise it, or ask for fewer records."),
    "not_json": gettext_noop("The answer is not JSON."),
    "wrong_shape": gettext_noop("The JSON has another form than was asked for."),
    "record_incomplete": gettext_noop("A record lacks a text, or has an empty one."),
    "turns_differ": gettext_noop("A conversation has another number of questions than was asked for."),
    "answer_empty": gettext_noop("The answer is empty."),
    "refused": gettext_noop("The model refused the request for this document."),
}
_FENCE = re.compile(r"^```(?:json)?[^\S\n]*\n(.*?)\n?```\s*$", re.DOTALL)  # in linear time
_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)  # what reasoning models write before their answer


def read(settings: RecordSettings, answer: str, is_cut: bool) -> tuple[list[list[str]], list[str]]:
    """The cells of each record in an answer, and the code of a problem for each record that cannot be used.

    Records beyond the number that was asked for are left out.
    """
    text = printable_text(_THOUGHTS.sub("", answer)).strip()
    if settings.kind == "text":
        return ([], ["cut"]) if is_cut else ([[text]], []) if text else ([], ["answer_empty"])
    if not text:
        return [], ["cut" if is_cut else "answer_empty"]
    fenced = _FENCE.match(text)
    try:
        content = _parsed(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return [], ["cut" if is_cut else "not_json"]
    entries = content.get("records") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        return [], ["wrong_shape"]
    records, problems = [], []
    for entry in entries[: settings.records_per_document]:
        cells = _question_cells(entry) if settings.kind == "question_answer" else _chat_cells(entry)
        if cells is None:
            problems.append("wrong_shape")
        elif not all(cell.strip() for cell in cells):
            problems.append("record_incomplete")
        elif settings.kind == "chat" and len(cells) != 2 * settings.num_turns:
            problems.append("turns_differ")
        else:
            records.append([printable_text(cell).strip() for cell in cells])
    return records, problems


def _parsed(text: str) -> Any:
    """The JSON in a text; models without a JSON mode put words around it. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        start, end = text.find("{"), text.rfind("}")
        if start < 0 or end <= start:
            raise
        return json.loads(text[start : end + 1])


def _question_cells(entry: Any) -> list[str] | None:
    return _texts(entry, "question", "answer")


def _chat_cells(entry: Any) -> list[str] | None:
    turns = entry.get("turns") if isinstance(entry, dict) else None
    if not isinstance(turns, list):
        return None
    cells = [_texts(turn, "user", "assistant") for turn in turns]
    return None if any(pair is None for pair in cells) else [cell for pair in cells if pair for cell in pair]


def _texts(entry: Any, *names: str) -> list[str] | None:
    """Texts of an object; a missing one is empty. None if it is no object, or has another type of value."""
    if not isinstance(entry, dict):
        return None
    values = [entry.get(name, "") for name in names]
    return [str(value) for value in values] if all(isinstance(value, str) for value in values) else None
