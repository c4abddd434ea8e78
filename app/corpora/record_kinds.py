"""Kinds of records: their names, what their columns are, mappings of columns by hand, and records for their display."""

import json
from collections.abc import Iterable
from typing import Any

from app.core.errors import bad_field
from app.core.i18n import _, gettext_noop, translate
from app.core.json_shapes import CorpusColumn, CorpusMapping
from app.core.models import Corpus
from app.core.names import checked_name
from trainer.formats.corpus_kinds import CORPUS_KINDS, MAPPED_FIELDS

MAX_COLUMN_LENGTH = 80

KIND_WORDS = {
    "text": gettext_noop("Text"),
    "chat": gettext_noop("Conversations"),
    "completion": gettext_noop("Prompts with completions"),
    "classification": gettext_noop("Texts with labels"),
    "preference": gettext_noop("Preferred answers"),
    "seq2seq": gettext_noop("Sources with targets"),
    "multiple_choice": gettext_noop("Multiple choice"),
    "questions": gettext_noop("Questions with checked answers"),
    "unpaired": gettext_noop("Judged single answers"),
}


def kind_names(kinds: Iterable[str]) -> str:
    """Kinds of corpora in a sentence, as pages call them."""
    return _(", ").join(f"“{translate(KIND_WORDS[kind])}”" for kind in kinds)


# What a file of each kind looks like.
LOOKS = {
    "text": gettext_noop("This looks like documents: running text."),
    "chat": gettext_noop("This looks like chat: conversations of users and an assistant."),
    "completion": gettext_noop("This looks like prompts, each with the text that follows it."),
    "classification": gettext_noop("This looks like labels: texts, each with a class."),
    "preference": gettext_noop("This looks like preference pairs: a better and a worse answer to each prompt."),
    "seq2seq": gettext_noop("This looks like pairs of a source and a target, such as translations."),
    "multiple_choice": gettext_noop("This looks like questions with several choices."),
    "questions": gettext_noop("This looks like a test: questions with answers that can be checked."),
    "unpaired": gettext_noop("This looks like unpaired judgments: single answers, each called good or bad."),
}
# What kinds that no objective trains on can be used for.
USES = {
    "multiple_choice": gettext_noop("No model is trained on these records. Evaluate models on them."),
    "questions": gettext_noop("No model is trained on these records. Evaluate models on them."),
    "unpaired": gettext_noop(
        "No model is trained on judgments of single answers yet. Read the file as prompts with completions and skip "
        "the bad answers to train on the good ones, or write a good and a bad answer to the same prompt as “chosen” "
        "and “rejected”."
    ),
}
# When an answer to a question counts as right.
CHECK_WORDS = {
    "exact": gettext_noop("is exactly this text"),
    "contains": gettext_noop("contains this text"),
    "regex": gettext_noop("matches this regular expression"),
    "number": gettext_noop("ends with this number"),
    "judge": gettext_noop("a model judges it"),
}
# What a column is, by the field of a kind that it is.
FIELD_WORDS = {
    "text": gettext_noop("Text"),
    "label": gettext_noop("Label"),
    "messages": gettext_noop("Conversation"),
    "prompt": gettext_noop("Prompt"),
    "completion": gettext_noop("Completion"),
    "chosen": gettext_noop("Preferred"),
    "rejected": gettext_noop("Rejected"),
    "source": gettext_noop("Source"),
    "target": gettext_noop("Target"),
    "question": gettext_noop("Question"),
    "choices": gettext_noop("Choices"),
    "answer": gettext_noop("Right answer"),
    "check": gettext_noop("How the answer is checked"),
    "tolerance": gettext_noop("Allowed difference of a number"),
    "system": gettext_noop("System message"),
    "tools": gettext_noop("Tools"),
    "context": gettext_noop("Part of the prompt"),
    "history": gettext_noop("Earlier turns"),
    "translation": gettext_noop("Source and target"),
}
# The field that a key is, where its name is another one.
_FIELDS = {
    **dict.fromkeys(("conversations", "conversation"), "messages"),
    **dict.fromkeys(("instruction", "query", "question"), "prompt"),
    **dict.fromkeys(("response", "output", "answer", "answers"), "completion"),
    "system_prompt": "system",
    "functions": "tools",
    "input": "context",
    "kto_tag": "label",
    "preferred_output": "chosen",
    "non_preferred_output": "rejected",
    "src": "source",
    "tgt": "target",
}


def kind_of(corpus: Corpus) -> str:
    """The kind of the documents of a corpus; before it is ready, and if it cannot be read, the one that was chosen."""
    return corpus.kind if corpus.state == "ready" else corpus.progress.kind or corpus.kind


def column_uses(corpus: Corpus) -> list[tuple[CorpusColumn, str]]:
    """The columns of a corpus, each with the word of what it is used as; empty if it is not used."""
    report = corpus.progress
    fields = {column: field for field, column in report.mapping.columns.items()} if report.mapping else {}
    fields |= dict(zip(report.languages, ("source", "target"), strict=False))
    kind = corpus.kind if corpus.state == "ready" else report.kind

    def use(column: CorpusColumn) -> str:
        is_own = kind in ("multiple_choice", "questions") and column.name in FIELD_WORDS
        field = fields.get(column.name) or (column.name if is_own else _FIELDS.get(column.name, column.name))
        return translate(FIELD_WORDS.get(field, FIELD_WORDS["context"])) if column.used else ""

    return [(column, use(column)) for column in report.columns]


def checked_mapping(columns: dict[str, str], name: str = "") -> CorpusMapping:
    """A mapping of columns by hand, whose fields say the kind. Raises PanelError if they are those of none."""
    kind = next((kind for kind, *fields in MAPPED_FIELDS if _are_of_kind(set(columns), *fields)), None)
    if kind is None:
        expected = "; ".join(dict.fromkeys(", ".join(required) for _kind, required, _optional in MAPPED_FIELDS))
        message = _("Choose the columns of one kind of records: {expected}.", expected=expected)
        raise bad_field("mapping", "mapping_invalid", message)
    if len(set(columns.values())) < len(columns):
        raise bad_field("mapping", "mapping_invalid", _("Use each column once."))
    for column in columns.values():
        checked_name(column, max_length=MAX_COLUMN_LENGTH, field="mapping")
    name = checked_name(name.strip(), max_length=MAX_COLUMN_LENGTH, field="mapping") if name.strip() else ""
    return CorpusMapping(name=name, kind=kind, columns=columns)


def checked_kind(kind: str) -> str | None:
    """A kind of records, or None to detect it from the first record. Raises PanelError for an unknown kind."""
    if kind and kind not in CORPUS_KINDS:
        expected = ", ".join(CORPUS_KINDS)
        raise bad_field("kind", "kind_unknown", _("Choose a kind of: {expected}.", expected=expected))
    return kind or None


def _are_of_kind(fields: set[str], required: tuple[str, ...], optional: tuple[str, ...]) -> bool:
    return set(required) <= fields <= {*required, *optional}


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
