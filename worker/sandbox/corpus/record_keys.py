"""What the keys of records say: the kind of a record, judgments of answers, languages; and what columns hold."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from worker.sandbox.corpus.fields import storable

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
OBSERVED_RECORDS = 1_000  # by which columns are described
MAX_COLUMNS = 100  # that are described
SAMPLE_CHARACTERS = 120


class Column:
    """A key of records, as the first of them have it: in how many it is, with values of which types, and one value."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_used = False
        self._num_records = 0
        self._types: Counter[str] = Counter()
        self._sample = ""

    def observe(self, value: Any) -> None:
        """Count one value."""
        self._num_records += 1
        self._types[TYPES.get(type(value), "object")] += 1
        if not self._sample and value not in (None, "", [], {}):
            self._sample = storable(_text(value)[:SAMPLE_CHARACTERS])

    def facts(self) -> dict[str, Any]:
        """What was seen, for people."""
        types = [name for name, _number in self._types.most_common()]
        names = {"name": self.name, "types": types, "num_records": self._num_records}
        return {**names, "sample": self._sample, "used": self.is_used}


def _text(value: Any) -> str:
    try:
        return value if type(value) is str else json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "…"


TYPES = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    list: "list",
    dict: "object",
    type(None): "null",
}


def detect_kind(record: Mapping[str, Any]) -> str | None:
    """The kind of a record by its keys; None if they match none."""
    kind = next((kind for kind, keys in KEYS if all(key in record for key in keys)), None)
    # Numbers are too often categories: with them, the kind has to be asked for.
    if kind in ("chat", "completion") and any(
        str(record.get(key)).strip().lower() in ("true", "false") for key in JUDGMENT_KEYS
    ):
        return "unpaired"
    if kind is None and sum(key in LANGUAGES for key in record) == 2:
        return "seq2seq"
    return kind


def judgment(value: Any) -> bool | None:
    """Whether a value calls an answer good; None if it is no judgment."""
    if type(value) is str:
        value = value.strip().lower()
    return JUDGMENTS.get(value) if type(value) in (bool, int, str) else None
