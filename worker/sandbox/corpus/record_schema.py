"""The schema of a record of a corpus: its kind, its errors, and how it is stored. Standard library.

A record is stored as JSON with these keys only: chat {"messages", "tools"?}, whose messages messages.py describes;
completion {"prompt", "completion"}; classification {"text", "label"}; preference {"prompt", "chosen", "rejected",
"tools"?}, where each of the first three is text or a list of messages; seq2seq {"source", "target"}; multiple_choice
{"question", "choices", "answer"}; questions as in questions.py; unpaired {"prompt", "completion", "label", "tools"?},
whose label says whether the answer is good; of the kind text only the text. Other keys are counted, or rejected if they
decide what is learned.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from worker.sandbox.corpus.columns import Columns, root_of, unread_parts, value_at
from worker.sandbox.corpus.fields import SHOWN_CHARACTERS, BadLine, Fields, Record, storable
from worker.sandbox.corpus.messages import read_messages, read_tools
from worker.sandbox.corpus.questions import read_question
from worker.sandbox.corpus.record_keys import (
    CHAT_KEYS,
    CONVERSATION_KEYS,
    JUDGMENT_KEYS,
    LANGUAGES,
    PAIRS,
    PROMPT_KEYS,
    detect_kind,
    judgment,
)

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

MAX_LABELS = 10_000
KEPT_LABELS = 100  # counted for people to see
KEPT_UNUSED_KEYS = 100
MAX_GROUPS = 100_000  # counted apart; the others together
MAX_UNUSED_KEYS = 10_000  # counted apart; the others together
# Of conversations, completions and preferences: what changes what is learned, and that nothing here can represent.
UNSUPPORTED_KEYS = (
    *(*CHAT_KEYS, "tool_calls", "function_call", "reasoning_content", "train", "weight", "chosen", "rejected"),
    *("rejected_response", "context", "input", "images", "image", "videos", "video", "audios", "audio"),
)


class GroupedDocument(str):
    """What is kept of a record, with the group that its column names: None for a record without one."""

    group: str | None = None

    @classmethod
    def of(cls, text: str, group: str | None) -> "GroupedDocument":
        """A document with its group."""
        document = cls(text)
        document.group = group
        return document


class RecordReader:
    """Reads records of one kind: the requested one, or that of the first record."""

    def __init__(
        self, kind: str | None, mapping: Mapping[str, str] | None = None, group_column: str | None = None
    ) -> None:
        """With a `mapping`, each field of the kind is read from the key or path (columns.py) that it names, and no
        other key is. The value of `group_column` is the group of a record.
        """
        self.kind = kind
        self._mapping = mapping
        self._group_column = group_column
        self._groups: Counter[str] = Counter()
        self._num_ungrouped = 0
        self._is_asked = kind is not None
        self._columns = Columns()
        self._languages: tuple[str, str] | None = None
        self._labels: Counter[str] = Counter()
        self._num_turns = 0
        self._lengths: Counter[int] = Counter()  # by the power of two above them
        self._unused: Counter[str] = Counter()

    def document(self, record: Record) -> str:
        """What is kept of a record. Raises BadLine."""
        used: set[str] | None = set() if self._columns.observe(record) else None
        try:
            text = self._document(record, used)
            return text if self._group_column is None else GroupedDocument.of(text, self._group(record))
        finally:
            if used is not None:
                self._columns.use(used)

    def _group(self, record: Record) -> str | None:
        value = value_at(record, str(self._group_column))
        group = str(value).strip() if type(value) in (str, int, float, bool) else ""
        if not group:
            self._num_ungrouped += 1
            return None
        name = storable(group[:SHOWN_CHARACTERS])
        self._groups[name if name in self._groups or len(self._groups) < MAX_GROUPS else "…"] += 1
        return group

    def _mapped(self, record: Record) -> tuple[Record, list[str]]:
        """The record by the names of its kind, and the keys of it that are not read."""
        if self._mapping is None:
            return record, []
        paths = self._mapping.values()
        sources = {root_of(record, path) for path in paths}
        values = {field: value_at(record, path) for field, path in self._mapping.items()}
        mapped = {field: value for field, value in values.items() if value is not None}
        return mapped, [*(key for key in record if key not in sources), *unread_parts(record, paths)]

    def _document(self, record: Record, used: set[str] | None) -> str:
        names = list(record)
        record, rest = self._mapped(record)
        kind = self._kind_of(record)
        record = self._without_languages(record) if kind == "seq2seq" else record
        unused: Counter[str] = Counter()
        values, place = _flat(record) if kind == "preference" else record, "text" if kind == "text" else "field"
        fields = Fields(values, place, has_context=self._mapping is not None and "context" in self._mapping)
        try:
            if kind == "text":
                text = fields.text("text")
            else:
                normalized = READERS[kind](fields, unused)
                text = _encoder.encode(normalized)
        except RecursionError:
            raise BadLine("too_deep") from None
        unused.update(rest + unused_keys(fields, kind))
        if used is not None:
            names += (self._mapping or {}).values()
            used.update(storable(name[:SHOWN_CHARACTERS]) for name in names if name not in unused)
        if kind != "text":
            self._count(normalized)
        for key, number in unused.items():
            name = storable(key[:SHOWN_CHARACTERS])
            self._unused[name if name in self._unused or len(self._unused) < MAX_UNUSED_KEYS else "…"] += number
        self._lengths[len(text).bit_length()] += 1
        return text

    def knows_columns(self, names: list[str]) -> bool:
        """Whether records with these keys can be read."""
        if self._mapping is not None:
            return any(root_of(dict.fromkeys(names), name) in names for name in self._mapping.values())
        return detect_kind(dict.fromkeys(names)) is not None

    def name_columns(self, names: list[str], row: list[str]) -> None:
        """Describe the columns of a table that cannot be read, by their names and perhaps one row."""
        self._columns.observe(dict(zip(names, [*row, *[""] * len(names)], strict=False)))

    def _without_languages(self, record: Record) -> Record:
        """A translation with `source` and `target` instead of languages, in the order of the first record."""
        pair = record.get("translation")
        if type(pair) is not dict:
            pair = {key: record[key] for key in record if key in LANGUAGES}
        if len(pair) != 2 or {"source", "target"} <= record.keys() or {"src", "tgt"} <= record.keys():
            return record
        first, second = pair
        self._languages = self._languages or (first, second)
        if set(self._languages) != {first, second}:
            raise BadLine("languages_differ", found=f"{first}, {second}", expected=", ".join(self._languages))
        rest = {key: value for key, value in record.items() if key != "translation" and key not in pair}
        return {"source": pair[self._languages[0]], "target": pair[self._languages[1]], **rest}

    def begin_text(self) -> None:
        """What follows has no keys: it is text. Raises BadLine among records."""
        if self.kind is None:
            self.kind = "text"
        if self.kind != "text":
            raise BadLine("record_mixed", found="text", kind=self.kind)

    def document_of_text(self, text: str) -> str:
        """What is kept of a document without keys, which is all of it. Raises BadLine among records."""
        self.begin_text()
        self._lengths[len(text).bit_length()] += 1
        return text

    def _kind_of(self, record: Record) -> str:
        """The kind to read a record as, which is that of all. Raises BadLine for a record of another one."""
        kind = detect_kind(record)
        if self.kind is None:
            if kind is None:
                raise BadLine("keys_unknown", keys=", ".join(record)[:200]) if record else BadLine("text_missing")
            is_chat = kind == "completion" and any(key in record for key in CHAT_KEYS)
            self.kind = "chat" if is_chat else kind
        is_same = kind in (None, self.kind) or (kind, self.kind) == ("completion", "chat")
        if not is_same and not self._is_asked:
            raise BadLine("record_mixed", found=kind, kind=self.kind)
        return self.kind

    def _count(self, normalized: Record) -> None:
        self._num_turns += len(normalized.get("messages", ()))
        label = normalized.get("check", normalized.get("label"))
        if label is not None:
            label = str({True: "good", False: "bad"}.get(label, label))
            if label not in self._labels and len(self._labels) == MAX_LABELS:
                raise BadLine("labels_many", limit=MAX_LABELS)
            self._labels[label] += 1

    def facts(self) -> dict[str, Any]:
        """What was counted, for people to see."""
        facts: dict[str, Any] = {
            "lengths": {str(bits): number for bits, number in sorted(self._lengths.items())},
            "unused_keys": dict(self._unused.most_common(KEPT_UNUSED_KEYS)),
        }
        facts["columns"] = self._columns.facts()
        if self._group_column is not None:
            facts["groups"] = dict(self._groups.most_common(KEPT_LABELS))
            facts |= {"num_groups": len(self._groups), "num_ungrouped": self._num_ungrouped}
        if self._languages is not None:
            facts["languages"] = list(self._languages)
        if self.kind in ("classification", "questions", "unpaired"):
            facts |= {"labels": dict(self._labels.most_common(KEPT_LABELS)), "num_labels": len(self._labels)}
        return facts | {"num_turns": self._num_turns} if self.kind == "chat" else facts


def unused_keys(fields: Fields, kind: str) -> list[str]:
    """The keys that were not read. Raises BadLine for a key that decides what is learned."""
    if kind in ("chat", "completion", "preference"):
        for key in (key for key, value in fields.rest.items() if value not in (None, "", [], {})):
            if key in JUDGMENT_KEYS and kind != "preference" and not fields.has("text"):
                is_good = judgment(fields.rest[key])
                if is_good:
                    continue
                raise BadLine("judgment" if is_good is None else "judged_bad", key=key)
            if key in CHAT_KEYS and kind == "completion":
                raise BadLine("key_of_chat", key=key)
            if key in UNSUPPORTED_KEYS:
                raise BadLine("key_unsupported", key=key)
    return list(fields.rest)


# ---- prompts with answers, and conversations ------------------------------------------------------------------------


def _completion(fields: Fields, unused: Counter[str]) -> Record:
    prompt_key, answer_key = _pair_keys(fields)
    if answer_key == "answers":
        _first_answer(fields, unused)
    for key in (prompt_key, answer_key):
        if type(fields.rest.get(key)) is list:
            raise BadLine("pair_list", field=key)
    end = "\n\n" if _may_have_context(fields, prompt_key) else ""
    return {"prompt": _prompt(fields, prompt_key) + end, "completion": fields.text(answer_key)}


def _first_answer(fields: Fields, unused: Counter[str]) -> None:
    """Put the first of several answers, as SQuAD has them, in place of all. Raises BadLine if there is none."""
    answers = fields.pop("answers")
    texts = answers.get("text") if type(answers) is dict else answers
    texts = [text.get("text") if type(text) is dict else text for text in texts] if type(texts) is list else texts
    if texts == []:
        raise BadLine("answers_empty")
    if type(texts) is list and len(texts) > 1:
        unused["answers[1:]"] += len(texts) - 1
    fields.rest["answers"] = texts[0] if type(texts) is list else texts


def _pair_keys(fields: Fields) -> tuple[str, str]:
    return next((pair for pair in PAIRS if fields.has(*pair)), PAIRS[0])


def _prompt(fields: Fields, key: str) -> str:
    """A prompt; a blank line parts an instruction from its input, and the context from a question about it."""
    prompt = fields.text(key)
    context = fields.optional_text("input", "context") if _may_have_context(fields, key) else ""
    passage = fields.optional_text("context") if key in ("question", "query") else ""
    return "\n\n".join(filter(None, (passage, prompt, context)))


def _may_have_context(fields: Fields, key: str) -> bool:
    """Whether an input may follow a prompt: of an instruction, or where a column is mapped to it."""
    return key == "instruction" or fields.has_context


def _chat(fields: Fields, unused: Counter[str]) -> Record:
    key = next((key for key in CONVERSATION_KEYS if fields.has(key)), None)
    if key is not None:
        messages = _messages(fields, key, unused)
    elif any(fields.has(*pair) for pair in PAIRS):
        prompt_key, answer_key = _pair_keys(fields)
        question = {"role": "user", "content": _prompt(fields, prompt_key)}
        messages = [*_history(fields), question, {"role": "assistant", "content": fields.text(answer_key)}]
    else:
        raise BadLine("field_missing", field="messages")
    messages = _with_system(fields, messages)
    if not any(message["role"] == "assistant" for message in messages):
        raise BadLine("messages_unanswered")
    return _with_tools(fields, {"messages": messages})


def _messages(fields: Fields, key: str, unused: Counter[str]) -> list[Record]:
    """The messages of a key, whose value may also be JSON in a string, as tables have it."""
    value = fields.pop(key)
    if type(value) is str and value.lstrip().startswith("["):
        value = fields.parsed(value, key)
    return read_messages(value, key, unused)


def _with_tools(fields: Fields, record: Record) -> Record:
    tools = read_tools(fields)
    return {**record, "tools": tools} if tools else record


def _with_system(fields: Fields, messages: list[Record]) -> list[Record]:
    """The messages, preceded by the system message of the record if it has one. Raises BadLine for two of them."""
    system = {"role": "system", "content": fields.optional_text("system", "system_prompt")}
    if not system["content"] or messages[:1] == [system]:
        return messages
    if messages and messages[0]["role"] == "system":
        raise BadLine("system_twice")
    return [system, *messages]


def _history(fields: Fields) -> list[Record]:
    """The earlier turns that LLaMA-Factory keeps in `history`: a list of questions with their answers."""
    turns = fields.take("history") or []
    if type(turns) is not list or not all(
        type(turn) is list and len(turn) == 2 and all(type(text) is str and text.strip() for text in turn)
        for turn in turns
    ):
        raise BadLine("history_invalid")
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]


# ---- preferences ----------------------------------------------------------------------------------------------------


def _preference(fields: Fields, unused: Counter[str]) -> Record:
    prompt_key = next((key for key in PROMPT_KEYS if fields.rest.get(key) is not None), None)
    prompt = _prompt_of_pair(fields, prompt_key, unused)
    answers = [_answer(fields, key, unused) for key in ("chosen", "rejected")]
    context = _history(fields)
    if type(prompt) is list:
        context += prompt
    elif prompt is not None:
        context.append({"role": "user", "content": prompt})
    context = _with_system(fields, context)
    record = _with_tools(fields, {})
    if record or type(prompt) is list or len(context) > 1 or any(type(answer) is list for answer in answers):
        chosen, rejected = (_conversation(context, answer) for answer in answers)
        return _split_conversations(chosen, rejected) | record
    chosen, rejected = answers
    if chosen == rejected:
        raise BadLine("answers_same")
    if prompt is None:
        return _split_texts(chosen, rejected)
    end = "\n\n" if _may_have_context(fields, prompt_key or "") else ""
    return {"prompt": f"{prompt}{end}", "chosen": chosen, "rejected": rejected}


def _flat(record: Record) -> Record:
    """A preference by the names above, if it has OpenAI's: there the conversation and its tools lie in `input`."""
    names = {"preferred_output": "chosen", "non_preferred_output": "rejected"}
    if not names.keys() <= record.keys():
        return record
    inner = record.get("input")
    outer = {names.get(key, key): value for key, value in record.items() if key != "input" or type(inner) is not dict}
    return {**inner, **outer} if type(inner) is dict else outer


def _prompt_of_pair(fields: Fields, key: str | None, unused: Counter[str]) -> str | list[Record] | None:
    if key is None:
        return None
    if key in CONVERSATION_KEYS or type(fields.rest[key]) is list:
        return _messages(fields, key, unused)
    return _prompt(fields, key)


def _answer(fields: Fields, key: str, unused: Counter[str]) -> Any:
    """An answer as text, or the messages from the prompt or after it to the answer. Raises BadLine."""
    value = fields.rest.get(key)
    if type(value) not in (dict, list):
        return fields.text(key)
    fields.pop(key)
    messages = read_messages(value if type(value) is list else [value], key, unused)
    if not messages or messages[-1]["role"] != "assistant":
        raise BadLine("answer_role", field=key, role=messages[-1]["role"] if messages else "system")
    return messages


def _conversation(context: list[Record], answer: Any) -> list[Record]:
    """The messages from the first to an answer, which may repeat those before it. Raises BadLine."""
    if type(answer) is str:
        return [*context, {"role": "assistant", "content": answer}]
    if answer[0]["role"] == "assistant":
        return [*context, *answer]
    systems = [messages[:1] if messages and messages[0]["role"] == "system" else [] for messages in (context, answer)]
    before, after = context[len(systems[0]) :], answer[len(systems[1]) :]
    if after[: len(before)] != before or (all(systems) and systems[0] != systems[1]):
        raise BadLine("prompt_differs")
    return [*(systems[0] or systems[1]), *after]


def _split_conversations(chosen: list[Record], rejected: list[Record]) -> Record:
    """The messages that two conversations share, and the rest of each: TRL's implicit prompt."""
    if chosen == rejected:
        raise BadLine("answers_same")
    length = _shared_length(chosen, rejected)
    prompt, answers = chosen[:length], (chosen[length:], rejected[length:])
    if not prompt or any(answer[0]["role"] != "assistant" for answer in answers):
        raise BadLine("prompts_differ")
    return {"prompt": prompt, "chosen": _plain(answers[0]), "rejected": _plain(answers[1])}


def _shared_length(chosen: Any, rejected: Any) -> int:
    """How many items two sequences share at their beginnings, so that at least one of each is left."""
    most = min(len(chosen), len(rejected)) - 1
    return next((n for n in range(most) if chosen[n] != rejected[n]), most)


def _plain(answer: list[Record]) -> Any:
    """The text of an answer that is one message without anything else."""
    return answer[0]["content"] if len(answer) == 1 and answer[0].keys() == {"role", "content"} else answer


def _split_texts(chosen: str, rejected: str) -> Record:
    """The text that two texts share, and the rest of each: TRL's implicit prompt, without the space at its end."""
    length = _shared_length(chosen, rejected)
    length -= chosen[:length].endswith(" ")
    fields = Fields({"prompt": chosen[:length], "chosen": chosen[length:], "rejected": rejected[length:]})
    if not chosen[:length].strip():
        raise BadLine("field_missing", field="prompt")
    return {key: fields.text(key) for key in ("prompt", "chosen", "rejected")}


# ---- single answers with a judgment ---------------------------------------------------------------------------------


def _unpaired(fields: Fields, unused: Counter[str]) -> Record:
    key = next((key for key in JUDGMENT_KEYS if fields.has(key)), "label")
    is_good = judgment(fields.take(key))
    if is_good is None:
        raise BadLine("judgment_invalid", key=key)
    conversation_key = next((key for key in CONVERSATION_KEYS if fields.has(key)), None)
    if conversation_key is None and any(fields.has(*pair) for pair in PAIRS):
        prompt_key, answer_key = _pair_keys(fields)
        if any(type(fields.rest[key]) is list for key in (prompt_key, answer_key)):
            messages = [_messages(fields, key, unused) for key in (prompt_key, answer_key)]
            return _judged([*messages[0], *messages[1]], is_good, fields)
        record = _completion(fields, unused)
        system = fields.optional_text("system", "system_prompt")
        if not system:
            return {**record, "label": is_good}
        question = {"role": "user", "content": record["prompt"]}
        return _judged([question, {"role": "assistant", "content": record["completion"]}], is_good, fields, system)
    if conversation_key is None:
        raise fields.bad("missing", "prompt")
    return _judged(_messages(fields, conversation_key, unused), is_good, fields)


def _judged(messages: list[Record], is_good: bool, fields: Fields, system: str = "") -> Record:
    """A conversation whose last message is judged. Raises BadLine."""
    messages = [{"role": "system", "content": system}, *messages] if system else _with_system(fields, messages)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise BadLine("answer_role", field="completion", role=messages[-1]["role"] if messages else "system")
    record = {"prompt": messages[:-1], "completion": _plain(messages[-1:]), "label": is_good}
    return _with_tools(fields, record)


# ---- the other kinds ------------------------------------------------------------------------------------------------


def _classification(fields: Fields, unused: Counter[str]) -> Record:
    if not fields.has("label"):
        raise fields.bad("missing", "label")
    label = fields.take("label")
    if type(label) not in (str, int) or not str(label).strip() or len(str(label)) > 200:
        raise BadLine("label_invalid")
    return {"text": fields.text("text"), "label": str(label).strip()}


def _pair(fields: Fields, unused: Counter[str]) -> Record:
    source, target = ("src", "tgt") if fields.has("src", "tgt") else ("source", "target")
    return {"source": fields.text(source), "target": fields.text(target)}


def _choice(fields: Fields, unused: Counter[str]) -> Record:
    choices, answer = fields.take("choices"), fields.take("answer")
    if type(choices) is not list or len(choices) < 2 or not all(type(c) is str and c.strip() for c in choices):
        raise BadLine("choices_invalid")
    if len(set(choices)) < len(choices):
        raise BadLine("choices_invalid")
    number = choices.index(answer) if answer in choices else answer
    if type(number) is not int or not 0 <= number < len(choices):
        raise BadLine("answer_invalid")
    return {"question": fields.text("question"), "choices": choices, "answer": number}


READERS: dict[str, Callable[[Fields, Counter[str]], Record]] = {
    "chat": _chat,
    "completion": _completion,
    "classification": _classification,
    "preference": _preference,
    "seq2seq": _pair,
    "multiple_choice": _choice,
    "questions": read_question,
    "unpaired": _unpaired,
}
