"""300 random records of each kind, from the upload to the samples: no key, turn or weight is lost or invented.

What a record means is read from it by `json` here; what its sample is, by transformers' `apply_chat_template`.
"""

import json
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.data.test_record_encoding import weighted_text
from tests.trainer.runs import english, write_corpus
from trainer.data import tokenizer
from trainer.data.corpus import CorpusReader
from trainer.data.record_encoding import RecordEncoder, Segment
from trainer.run_dir import CorpusInput
from worker.sandbox.corpus import parse

COUNT = 300
TEMPLATE = (
    "{% if tools %}{{ '[tools] ' + (tools | tojson) + '\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '[' + message.role + ']' }}{% if message.name %}{{ ' ' + message.name }}{% endif %}{{ '\\n' }}"
    "{% if message.reasoning_content %}{{ '(' + message.reasoning_content + ')' }}{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ '\\n' + call.function.name + ' ' + (call.function.arguments | tojson) }}{% endfor %}"
    "{{ '[end]\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}"
)
WORDS = [
    "And",
    "God",
    "said",
    "光",
    "天地",
    "🜍",
    "café",
    '"quoted"',
    "tab\t",
    "line\nbreak",
    "\\",
    "{",
    "]",
    "\u2028",
    " ",
]

Record = dict[str, Any]


@pytest.fixture(scope="module")
def hf_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    home = tmp_path_factory.mktemp("random")
    tokenizer.save(tokenizer.train([write_corpus(home / "c", [english()])], 400, lambda done, total: None), home / "t")
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(home / "t")
    loaded.chat_template = TEMPLATE
    return loaded


class Chance(random.Random):
    """Random texts and records."""

    def words(self) -> str:
        return " ".join(self.choices(WORDS, k=self.randint(1, 8))) + "."

    def maybe(self, share: float = 0.3) -> bool:
        return self.random() < share

    def function(self) -> Record:
        return {"name": f"look_{self.randint(0, 9)}", "arguments": {self.words(): self.choice([1, 0.5, None, ["光"]])}}

    def extra(self, record: Record) -> Record:
        """The record with keys that say nothing of what is learned, in any order."""
        keys = [key for key in ("id", "source_url", "meta") if self.maybe()]
        items = [*record.items(), *((key, self.choice([None, 3, {"a": "b"}])) for key in keys)]
        self.shuffle(items)
        return dict(items)

    def openai_message(self, role: str) -> Record:
        message: Record = {"role": role, "content": self.words()}
        if self.maybe(0.2):
            message["content"] = [{"type": "text", "text": self.words()} for _n in range(self.randint(1, 3))]
        if role == "assistant":
            if self.maybe(0.2):
                calls = [self.function() for _n in range(self.randint(1, 2))]
                message["tool_calls"] = [
                    {
                        "id": f"c{n}",
                        "type": "function",
                        "function": {**call, "arguments": json.dumps(call["arguments"])},
                    }
                    for n, call in enumerate(calls)
                ]
                message["content"] = None if self.maybe(0.5) else message["content"]
            if self.maybe(0.2):
                message["reasoning_content"] = self.words()
            if self.maybe():
                message |= self.choice(
                    [{"weight": 0}, {"weight": 0.5}, {"weight": 1}, {"train": False}, {"train": True}]
                )
        if role == "tool" and self.maybe():
            message |= {"name": "look_up", "tool_call_id": "c0"}
        return message

    def conversation(self) -> list[Record]:
        roles = [role for _n in range(self.randint(1, 3)) for role in ("user", "assistant")]
        if self.maybe():
            roles += ["tool", "assistant"]
        return [self.openai_message(role) for role in roles]

    def chat(self) -> Record:
        if self.maybe():
            turns = [
                {"from": {"user": "human", "assistant": "gpt"}.get(m["role"], "observation"), "value": self.words()}
                for m in self.conversation()
            ]
            record: Record = {"conversations": turns}
            return record | ({"system": self.choice(["", " ", None, self.words()])} if self.maybe(0.5) else {})
        messages = self.conversation()
        if self.maybe(0.4):
            messages.insert(0, {"role": "system", "content": self.choice(["", "\n", self.words()])})
        record = {"messages": messages}
        if self.maybe():
            tools = [{"type": "function", "function": {"name": f"look_{n}", "parameters": {}}} for n in range(2)]
            record["tools"] = self.choice([tools, json.dumps(tools), [], None])
        return record

    def completion(self) -> Record:
        prompt, answer = self.words(), self.words()
        names = [("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("input", "output")]
        if self.maybe(0.6):
            first, second = self.choice(names)
            return {first: prompt, second: answer}
        context = {"input": self.choice(["", None, self.words()])} if self.maybe(0.6) else {}
        return {"instruction": prompt, "output": answer, **context}

    def classification(self) -> Record:
        return {"text": self.words(), "label": self.choice([0, 1, 12, "good", "光"])}

    def seq2seq(self) -> Record:
        return {"source": self.words(), "target": self.words()}

    def multiple_choice(self) -> Record:
        choices = [f"{n} {self.words()}" for n in range(self.randint(2, 5))]
        answer = self.randrange(len(choices))
        return {"question": self.words(), "choices": choices, "answer": self.choice([answer, choices[answer]])}

    def preference(self) -> Record:
        chosen, rejected = self.words(), f"No: {self.words()}"
        messages = [{"role": "user", "content": self.words()}]
        if self.maybe(0.25):
            return {"prompt": self.words(), "chosen": f"Yes: {chosen}", "rejected": rejected}
        if self.maybe():
            return {
                "conversations": [{"from": "human", "value": messages[0]["content"]}],
                "chosen": {"from": "gpt", "value": f"Yes: {chosen}"},
                "rejected": {"from": "gpt", "value": rejected},
            }
        answers = [
            [{"role": "assistant", "content": text} for text in (f"Yes: {chosen}", rejected)][n : n + 1] for n in (0, 1)
        ]
        if self.maybe(0.5):
            more = [{"role": "user", "content": self.words()}, {"role": "assistant", "content": self.words()}]
            answers = [[*answer, *more] for answer in answers]
        if self.maybe(0.5):
            return dict(zip(("chosen", "rejected"), ([*messages, *answer] for answer in answers), strict=True))
        return {"prompt": messages, "chosen": answers[0], "rejected": answers[1]}

    def text(self) -> Record:
        return {"text": self.words()}


def meant_message(turn: Record) -> Record:
    """A message as it was meant, with the weight that is 1 unless the message says otherwise."""
    if "from" in turn:
        role = {"human": "user", "gpt": "assistant", "observation": "tool"}[turn["from"]]
        return {"role": role, "content": turn["value"]}
    content = turn["content"]
    message = {**turn, "content": "".join(p["text"] for p in content) if isinstance(content, list) else content}
    if "train" in message:
        message["weight"] = int(message.pop("train"))
    if "tool_calls" in message:
        message["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
    return message


def meant_conversation(record: Record) -> tuple[list[Record], Any]:
    messages = [meant_message(turn) for turn in record.get("messages", record.get("conversations", []))]
    messages.insert(0, {"role": "system", "content": record.get("system") or ""})
    tools = record.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    return [m for m in messages if m["role"] != "system" or m["content"].strip()], tools or None


def meant_pair(record: Record) -> Record:
    for first, second in (("prompt", "completion"), ("prompt", "response"), ("question", "answer")):
        if first in record and second in record:
            return {"prompt": record[first], "completion": record[second]}
    if "instruction" not in record:
        return {"prompt": record["input"], "completion": record["output"]}
    context = f"{record['input']}\n\n" if (record.get("input") or "").strip() else ""
    return {"prompt": f"{record['instruction']}\n\n{context}", "completion": record["output"]}


def meant_preference(record: Record) -> list[tuple[Any, Any]]:
    """For the chosen and the rejected answer: the prompt and what follows it, as text or as messages."""
    if isinstance(record.get("prompt"), str):
        return [(record["prompt"], record[key]) for key in ("chosen", "rejected")]
    sides = [[record[key]] if isinstance(record[key], dict) else record[key] for key in ("chosen", "rejected")]
    whole = [[meant_message(turn) for turn in side] for side in sides]
    prompt = [meant_message(turn) for turn in record.get("prompt", record.get("conversations", []))]
    whole = [[*prompt, *side] for side in whole]
    return [(side[:1], side[1:]) for side in whole]


def stored(directory: Path, records: list[Record], chance: Chance) -> tuple[dict[str, Any], CorpusReader]:
    """Upload records as JSON lines or as an array, parse them, and open the corpus as the trainer does."""
    texts = [json.dumps(record, ensure_ascii=chance.maybe(0.5)) for record in records]
    as_array = chance.maybe(0.5)
    upload = "[" + ",\n".join(texts) + "]" if as_array else "\n".join(texts)
    (directory / "upload").write_text(upload, encoding="utf-8", newline="")
    result = parse.parse(directory, "json", None, False, lambda done: None)
    source = CorpusInput(id="c", path=str(directory), sha256=result["text_sha256"], kind=result["kind"])
    return result, CorpusReader(source)


@pytest.fixture(params=[1, 2])
def chance(request: pytest.FixtureRequest) -> Chance:
    return Chance(request.param)


Case = tuple[list[Record], list[Record], Callable[[Record], list[Segment]]]


@pytest.fixture
def upload(tmp_path: Path, chance: Chance, hf_tokenizer: PreTrainedTokenizerFast) -> Callable[[str, str], Case]:
    """Raw records of a kind, what was kept of them, and the encoder of an objective."""

    def work(kind: str, objective: str) -> Case:
        records = [chance.extra(getattr(chance, kind)()) for _n in range(COUNT)]
        result, corpus = stored(tmp_path, records, chance)
        assert result["kind"] == kind
        unused = Counter(key for record in records for key in record if key in ("id", "source_url", "meta"))
        assert result["progress"]["unused_keys"] == unused
        encoder = RecordEncoder(objective, hf_tokenizer)
        kept = [json.loads(text) for text in corpus.texts()] if kind != "text" else []
        assert len(corpus) == COUNT
        return records, kept, encoder.segments

    return work


def rendered(hf_tokenizer: PreTrainedTokenizerFast, messages: list[Record], tools: Any = None) -> str:
    return str(hf_tokenizer.apply_chat_template(messages, tools=tools, tokenize=False))


def answers(hf_tokenizer: PreTrainedTokenizerFast, messages: list[Record], first: int = 0) -> list[tuple[str, float]]:
    """The answers among messages as the template writes them, with their weights."""
    texts = [
        (rendered(hf_tokenizer, [message]).removeprefix("[assistant]\n").rstrip(), float(message.get("weight", 1)))
        for message in messages[first:]
        if message["role"] == "assistant"
    ]
    return [(text, weight) for text, weight in texts if weight]


def test_conversations(upload: Callable[[str, str], Case], hf_tokenizer: PreTrainedTokenizerFast) -> None:
    records, kept, segments = upload("chat", "chat")
    for record, document in zip(records, kept, strict=True):
        messages, tools = meant_conversation(record)
        assert document == {"messages": messages} | ({"tools": tools} if tools else {})
        (segment,) = segments(document)
        assert hf_tokenizer.decode(segment.ids) == rendered(hf_tokenizer, messages, tools)
        assert weighted_text(hf_tokenizer, segment) == answers(hf_tokenizer, messages)


def test_completions(upload: Callable[[str, str], Case], hf_tokenizer: PreTrainedTokenizerFast) -> None:
    records, kept, segments = upload("completion", "completion")
    for record, document in zip(records, kept, strict=True):
        meant = meant_pair(record)
        assert document == meant
        (segment,) = segments(document)
        assert hf_tokenizer.decode(segment.ids) == f"{meant['prompt']}{meant['completion']}<|endoftext|>"
        assert weighted_text(hf_tokenizer, segment) == [(f"{meant['completion']}<|endoftext|>", 1.0)]


def test_preferences(upload: Callable[[str, str], Case], hf_tokenizer: PreTrainedTokenizerFast) -> None:
    records, kept, segments = upload("preference", "dpo")
    for record, document in zip(records, kept, strict=True):
        for (prompt, answer), segment in zip(meant_preference(record), segments(document), strict=True):
            text = hf_tokenizer.decode(segment.ids)
            if isinstance(prompt, str):
                assert text == f"{prompt}{answer}<|endoftext|>"
                assert weighted_text(hf_tokenizer, segment) == [(f"{answer}<|endoftext|>", 1.0)]
            else:
                assert text == rendered(hf_tokenizer, [*prompt, *answer])
                assert weighted_text(hf_tokenizer, segment) == answers(hf_tokenizer, answer)


def test_labeled_texts(upload: Callable[[str, str], Case], hf_tokenizer: PreTrainedTokenizerFast) -> None:
    records, kept, segments = upload("classification", "classification")
    for record, document in zip(records, kept, strict=True):
        assert document == {"text": record["text"], "label": str(record["label"])}
        (segment,) = segments(document)
        assert hf_tokenizer.decode(segment.ids) == record["text"]


def test_sources_and_targets(upload: Callable[[str, str], Case], hf_tokenizer: PreTrainedTokenizerFast) -> None:
    records, kept, segments = upload("seq2seq", "seq2seq")
    for record, document in zip(records, kept, strict=True):
        texts = [hf_tokenizer.decode(segment.ids) for segment in segments(document)]
        assert texts == [f"{record[key]}<|endoftext|>" for key in ("source", "target")]


def test_choices(upload: Callable[[str, str], Case]) -> None:
    records, kept, _segments = upload("multiple_choice", "chat")
    for record, document in zip(records, kept, strict=True):
        answer = record["answer"]
        number = answer if isinstance(answer, int) else record["choices"].index(answer)
        assert document == {"question": record["question"], "choices": record["choices"], "answer": number}


def test_texts(tmp_path: Path, chance: Chance) -> None:
    records = [chance.extra(chance.text()) for _n in range(COUNT)]
    _result, corpus = stored(tmp_path, records, chance)
    assert list(corpus.texts()) == [record["text"] for record in records]
    assert [chunk.text for chunk in corpus.chunks()] == [record["text"] for record in records]
    ends = [end for (end,) in struct.iter_unpack("<Q", (tmp_path / "index.bin").read_bytes())]
    assert len(ends) == COUNT
