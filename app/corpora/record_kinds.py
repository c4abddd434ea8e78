"""The names of record kinds, and the parsing of records for their display."""

import json
from typing import Any

from app.core.errors import bad_field
from app.core.i18n import _, gettext_noop
from trainer.corpus_kinds import CORPUS_KINDS

KIND_WORDS = {
    "text": gettext_noop("Text"),
    "chat": gettext_noop("Conversations"),
    "completion": gettext_noop("Prompts with completions"),
    "classification": gettext_noop("Texts with labels"),
    "preference": gettext_noop("Preferred answers"),
    "seq2seq": gettext_noop("Sources with targets"),
    "multiple_choice": gettext_noop("Multiple choice"),
}


def checked_kind(kind: str) -> str | None:
    """A kind of records, or None to detect it from the first record. Raises PanelError for an unknown kind."""
    if kind and kind not in CORPUS_KINDS:
        expected = ", ".join(CORPUS_KINDS)
        raise bad_field("kind", "kind_unknown", _("Choose a kind of: {expected}.", expected=expected))
    return kind or None


def parse_record(text: str) -> dict[str, Any] | None:
    """The record in a preview, or None if the preview is cut and so not valid JSON."""
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    if type(record.get("prompt")) is list:  # a prompt that is a conversation is shown as one
        record["messages"] = record.pop("prompt")
    return record


def length_bars(lengths: dict[str, int]) -> list[tuple[int, int]]:
    """How many records have fewer characters than each power of two, from the shortest to the longest."""
    if not lengths:
        return []
    bits = sorted(map(int, lengths))
    return [(2**bit, lengths.get(str(bit), 0)) for bit in range(bits[0], bits[-1] + 1)]
