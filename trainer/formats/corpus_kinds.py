"""The kinds of corpora: what one document or record of each holds. Standard library only, for the sandboxed parser."""

import hashlib
from collections.abc import Iterable

# A document of the kind text is running text. Records of the other kinds: see worker/sandbox/corpus/record_schema.py.
CORPUS_KINDS = (
    *("text", "chat", "completion", "classification", "preference", "seq2seq"),
    *("multiple_choice", "questions", "unpaired"),
)
# The fields that columns can be mapped to: the kind that they make, those a record must have, and those it may have.
MAPPED_FIELDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("text", ("text",), ()),
    ("chat", ("messages",), ("system", "tools")),
    ("completion", ("prompt", "completion"), ("context",)),
    ("chat", ("prompt", "completion"), ("context", "history", "system", "tools")),
    ("classification", ("text", "label"), ()),
    ("preference", ("chosen", "rejected"), ("context", "history", "prompt", "system", "tools")),
    ("seq2seq", ("source", "target"), ()),
    ("multiple_choice", ("question", "choices", "answer"), ()),
    ("questions", ("question", "answer"), ("check", "tolerance")),
    ("unpaired", ("prompt", "completion", "label"), ("context", "system", "tools")),
)
# Those that a checkpoint can be evaluated on: trainer/inference/evaluation.py says with what.
EVALUATION_KINDS = ("text", "multiple_choice", "classification", "completion", "questions")
# How an answer to a question is checked: see trainer/inference/question_answering.py.
ANSWER_CHECKS = ("exact", "contains", "regex", "number", "judge")
# Kinds of corpora that each objective can be trained on.
CORPUS_KINDS_BY_OBJECTIVE = {
    "causal": ("text", "classification"),
    "masked": ("text", "classification"),
    "span_corruption": ("text", "classification"),
    "seq2seq": ("seq2seq",),
    "chat": ("chat",),
    "completion": ("completion",),
    "classification": ("classification",),
    "dpo": ("preference",),
}
TRAINED_KINDS = frozenset(kind for kinds in CORPUS_KINDS_BY_OBJECTIVE.values() for kind in kinds)

# ---- groups of documents, which are never split ----------------------------------------------------------------------

GROUPS_FILE = "groups.bin"  # beside `text.bin`: the hash of each document's group, 0 for one without; uint64
TRAIN_NAMES = ("train", "training")  # of a column that names the side of each document
VALIDATION_NAMES = ("validation", "valid", "val", "dev", "eval", "test")
SPLIT_KEY = b"athanor split"


def group_hash(parts: Iterable[bytes]) -> int:
    """The hash of a text or a group in UTF-8, which comes in parts: from 1 to 2**64 - 1, the same in every run."""
    digest = hashlib.blake2b(digest_size=8, key=SPLIT_KEY)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little") or 1
