"""What one record of a corpus may look like: which kind it is, what is wrong with it, how it is kept. Standard library.

A record is kept as JSON with these keys only: chat {"messages": [{"role", "content", "weight"?}]}; completion
{"prompt", "completion"}; classification {"text", "label"}; preference {"prompt", "chosen", "rejected"}; seq2seq
{"source", "target"}; multiple_choice {"question", "choices", "answer"}; of the kind text only the text itself.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
SPEAKERS = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
MAX_LABELS = 10_000
KEPT_LABELS = 100  # counted for people to see
# A record is of the first kind whose keys it has; the last ones are how others call the same.
KEYS = (
    ("chat", ("messages",)),
    ("chat", ("conversations",)),
    ("preference", ("chosen", "rejected")),
    ("multiple_choice", ("choices",)),
    ("completion", ("prompt", "completion")),
    ("completion", ("instruction", "output")),
    ("seq2seq", ("source", "target")),
    ("classification", ("text", "label")),
)

Record = dict[str, Any]


class BadLine(Exception):
    """A line that is not a document."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.problem = {"code": code, **values}


class RecordReader:
    """Reads records of one kind: that which was asked for, or that of the first record."""

    def __init__(self, kind: str | None) -> None:
        self.kind = kind
        self._is_asked = kind is not None
        self._labels: Counter[str] = Counter()
        self._num_turns = 0
        self._lengths: Counter[int] = Counter()  # by the power of two above them

    def document(self, record: Record) -> str:
        """What is kept of a record. Raises BadLine."""
        kind = detect_kind(record)
        if self.kind is None:
            self.kind = kind
        if kind != self.kind and not self._is_asked:
            raise BadLine("record_mixed", found=kind, kind=self.kind)
        if self.kind == "text":
            text = _text(record, "text", of_text=True)
        else:
            normalized = READERS[self.kind](record)
            self._count(normalized)
            text = json.dumps(normalized, ensure_ascii=False, separators=(",", ":"))
        self._lengths[len(text).bit_length()] += 1
        return text

    def _count(self, normalized: Record) -> None:
        self._num_turns += len(normalized.get("messages", ()))
        if "label" in normalized:
            self._labels[normalized["label"]] += 1
            if len(self._labels) > MAX_LABELS:
                raise BadLine("labels_many", limit=MAX_LABELS)

    def facts(self) -> dict[str, Any]:
        """What was counted, for people to see."""
        facts: dict[str, Any] = {"lengths": {str(bits): number for bits, number in sorted(self._lengths.items())}}
        if self.kind == "classification":
            facts |= {"labels": dict(self._labels.most_common(KEPT_LABELS)), "num_labels": len(self._labels)}
        return facts | {"num_turns": self._num_turns} if self.kind == "chat" else facts


def detect_kind(record: Mapping[str, Any]) -> str:
    """The kind that a record's keys tell."""
    return next((kind for kind, keys in KEYS if all(key in record for key in keys)), "text")


def _text(record: Mapping[str, Any], key: str, *, of_text: bool = False, may_be_empty: bool = False) -> str:
    """A string of a record. `of_text` speaks of it as of the one that a text's line has."""
    value = record.get(key)
    if type(value) is not str:
        if of_text:
            raise BadLine("text_missing" if key not in record else "text_not_string")
        raise BadLine("field_missing" if key not in record else "field_not_string", field=key)
    if not may_be_empty and (not value or value.isspace()):
        raise BadLine("text_empty") if of_text else BadLine("field_empty", field=key)
    if "\0" in value:
        raise BadLine("text_nul") if of_text else BadLine("field_nul", field=key)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadLine("surrogate", character=error.start + 1) from None
    return value


def _chat(record: Record) -> Record:
    turns = record.get("messages", record.get("conversations"))
    messages = _messages(turns, "messages" if "messages" in record else "conversations")
    if not any(message["role"] == "assistant" for message in messages):
        raise BadLine("messages_unanswered")
    return {"messages": messages}


def _messages(turns: Any, field: str) -> list[Record]:
    if type(turns) is not list or not turns:
        raise BadLine("field_not_messages", field=field)
    messages = [_message(turn, number) for number, turn in enumerate(turns, start=1)]
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    if spoken[:1] != ["user"]:
        raise BadLine("role_first")
    late = next((n for n, message in enumerate(messages, start=1) if n > 1 and message["role"] == "system"), None)
    if late is not None:
        raise BadLine("role_system_late", number=late)
    return messages


def _message(turn: Any, number: int) -> Record:
    if type(turn) is not dict:
        raise BadLine("message_not_object", number=number)
    role = turn.get("role", SPEAKERS.get(str(turn.get("from"))))
    if role not in ROLES:
        raise BadLine("role_unknown", number=number, role=str(turn.get("role", turn.get("from")))[:40])
    key = "content" if "content" in turn or "value" not in turn else "value"
    message = {"role": role, "content": _text(turn, key)}
    if role == "assistant" and "weight" in turn:
        weight = turn["weight"]
        if type(weight) not in (int, float) or weight < 0:
            raise BadLine("weight_invalid", number=number)
        message["weight"] = weight
    return message


def _completion(record: Record) -> Record:
    if "prompt" in record or "instruction" not in record:
        return {"prompt": _text(record, "prompt"), "completion": _text(record, "completion")}
    instruction = _text(record, "instruction")
    context = _text(record, "input", may_be_empty=True) if "input" in record else ""
    return {
        "prompt": f"{instruction}\n\n{context}\n\n" if context.strip() else f"{instruction}\n\n",
        "completion": _text(record, "output"),
    }


def _classification(record: Record) -> Record:
    label = record.get("label")
    if "label" not in record:
        raise BadLine("field_missing", field="label")
    if type(label) not in (str, int) or not str(label).strip() or len(str(label)) > 200:
        raise BadLine("label_invalid")
    return {"text": _text(record, "text"), "label": str(label).strip()}


def _preference(record: Record) -> Record:
    prompt = record.get("prompt")
    if type(prompt) is list:
        normalized_prompt: Any = _messages(prompt, "prompt")
    else:
        normalized_prompt = _text(record, "prompt")
    chosen, rejected = (_answer(record, key) for key in ("chosen", "rejected"))
    if chosen == rejected:
        raise BadLine("answers_same")
    return {"prompt": normalized_prompt, "chosen": chosen, "rejected": rejected}


def _answer(record: Record, key: str) -> str:
    """An answer as text; others write it as the conversation's last message."""
    value = record.get(key)
    if type(value) is list and value and type(value[-1]) is dict:
        return _text(value[-1], "content")
    return _text(record, key)


def _pair(record: Record) -> Record:
    return {"source": _text(record, "source"), "target": _text(record, "target")}


def _choice(record: Record) -> Record:
    choices = record.get("choices")
    if type(choices) is not list or len(choices) < 2 or not all(type(c) is str and c.strip() for c in choices):
        raise BadLine("choices_invalid")
    if len(set(choices)) < len(choices):
        raise BadLine("choices_invalid")
    answer = record.get("answer")
    number = choices.index(answer) if answer in choices else answer
    if type(number) is not int or not 0 <= number < len(choices):
        raise BadLine("answer_invalid")
    return {"question": _text(record, "question"), "choices": choices, "answer": number}


READERS: dict[str, Callable[[Record], Record]] = {
    "chat": _chat,
    "completion": _completion,
    "classification": _classification,
    "preference": _preference,
    "seq2seq": _pair,
    "multiple_choice": _choice,
}
