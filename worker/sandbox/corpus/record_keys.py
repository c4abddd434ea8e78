"""What the keys of records say: the kind of a record, judgments of answers, languages."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# Prompt and answer, by the names that datasets give them.
PAIRS = (
    *(("prompt", "completion"), ("instruction", "output")),
    *(("prompt", "response"), ("instruction", "response"), ("query", "response"), ("question", "response")),
    *(("question", "answer"), ("question", "answers"), ("input", "output")),
)
# A record is of the first kind whose keys it has.
KEYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("preference", ("chosen", "rejected")),
    ("preference", ("preferred_output", "non_preferred_output")),
    ("chat", ("messages",)),
    ("chat", ("conversations",)),
    ("chat", ("conversation",)),
    ("multiple_choice", ("choices",)),
    ("questions", ("question", "answer", "check")),
    *(("completion", pair) for pair in PAIRS[:2]),
    *(("seq2seq", keys) for keys in (("source", "target"), ("translation",), ("src", "tgt"))),
    ("classification", ("text", "label")),
    ("text", ("text",)),
    *(("completion", pair) for pair in PAIRS[2:]),
)
# Beside a prompt and an answer: such a record is a conversation.
CHAT_KEYS = ("system", "system_prompt", "history", "tools", "functions")
# What a preference's answers answer, where they do not repeat it.
PROMPT_KEYS = ("prompt", "messages", "conversations", "conversation", "instruction", "question", "query", "input")
CONVERSATION_KEYS = ("messages", "conversations", "conversation")
# Whether a single answer is good: TRL's and LLaMA-Factory's key, and how tables write it.
JUDGMENT_KEYS = ("label", "kto_tag")
JUDGMENTS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}  # 1 and 0 as numbers, too
# The languages whose codes, as the only two among the keys of a record, make it a translation.
LANGUAGES = frozenset(
    re.findall(
        "[a-z]+",
        "af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy is it ja ka kk km kn "
        "ko ku ky la lo lt lv mk ml mn mr ms mt my nb ne nl nn no pa pl ps pt ro ru sd si sk sl sq sr sv sw ta te tg "
        "th tl tr uk ur uz vi yi zh zu",
    )
)


def detect_kind(record: Mapping[str, Any]) -> str | None:
    """The kind of a record by its keys; None if they match none."""
    kind = _kind_by_keys(tuple(record))
    # Numbers are too often categories: with them, the kind has to be asked for.
    if kind in ("chat", "completion") and any(
        str(record.get(key)).strip().lower() in ("true", "false") for key in JUDGMENT_KEYS
    ):
        return "unpaired"
    return kind


@lru_cache(maxsize=16)  # records of a file have few sets of keys
def _kind_by_keys(keys: tuple[str, ...]) -> str | None:
    kind = next((kind for kind, needed in KEYS if set(needed) <= set(keys)), None)
    return "seq2seq" if kind is None and sum(key in LANGUAGES for key in keys) == 2 else kind


def judgment(value: Any) -> bool | None:
    """Whether a value calls an answer good; None if it is no judgment."""
    if type(value) is str:
        value = value.strip().lower()
    return JUDGMENTS.get(value) if type(value) in (bool, int, str) else None
