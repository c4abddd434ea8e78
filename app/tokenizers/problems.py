"""Why a tokenizer could not be trained or imported: the sentence of each code."""

from typing import Any

from app.base_models import problems as base_models
from app.core.formatting import file_size
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import Problem

MESSAGES = {
    "data_empty": gettext_noop("The corpora contain no text. Choose others."),
    "corpus_gone": gettext_noop(
        "A corpus was deleted or read again before the tokenizer was trained. Train another one."
    ),
    "disk_filled_up": gettext_noop(
        "The disk of the data directory became full, so the task was stopped. Free some space, then start another one."
    ),
    "out_of_memory": gettext_noop("It needed more than {limit} of memory. Choose a smaller sample or vocabulary."),
    "storage": gettext_noop("A file could not be written to disk: {why}."),
    "unforeseen": gettext_noop("It failed with an unexpected error ({why}). See the worker's log."),
    "result_unstorable": gettext_noop("The result could not be stored ({why}). Start the task again."),
    "tokenizer_died": gettext_noop(
        "The process took too long or was stopped (status {status}). The node may be short of memory."
    ),
    "tokenizer_lost": gettext_noop("The worker was lost {count} times while preparing it. See the health page."),
    "tokenizer_cancelled": gettext_noop("It was cancelled. Delete it, or start another one."),
    "tokenizer_missing": gettext_noop("There is no tokenizer.json and no SentencePiece model (tokenizer.model)."),
    "sentencepiece_broken": gettext_noop("{file} is not a SentencePiece model, or it is incomplete."),
    "sentencepiece_kind": gettext_noop(
        "SentencePiece models of the type {kind} cannot be converted; those of the types unigram and bpe can."
    ),
    "sentencepiece_spaces": gettext_noop(
        "This SentencePiece model writes spaces at the end of words, or not at all, which cannot be converted."
    ),
    "sentencepiece_denormalizer": gettext_noop(
        "This SentencePiece model changes text when it decodes, which cannot be converted."
    ),
    "end_missing": gettext_noop(
        "The file names no end-of-text token. Import it again and enter the token in the field, or upload an archive "
        "with tokenizer_config.json."
    ),
    "end_unknown": gettext_noop("The vocabulary has no token {token}. Enter one that it has."),
}


def sentence(problem: Problem) -> str:
    """A problem in the reader's language. The checks that imports of base models share have their sentences there."""
    if problem.code not in MESSAGES:
        return base_models.sentence(problem)
    values: dict[str, Any] = problem.values
    limit = values.get("limit_bytes", values.get("limit"))
    if isinstance(limit, int):
        values["limit"] = file_size(limit)
    return _(MESSAGES[problem.code], **values)
