"""Encodes a record as segments of tokens, each token with its weight in the loss. Imports transformers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.data import chat_template
from trainer.data.chat_template import ChatMessage
from trainer.data.record_refused import RecordRefused
from trainer.data.special_tokens import SpecialTokens
from trainer.data.tokenizer import end_ids, start_ids
from trainer.failure import Failure
from trainer.families import CHAT_OBJECTIVES

MARKS = ("<|im_start|>", "<|im_end|>")

PLACEHOLDER = "\ue010"  # a private-use character: no text of a corpus has it

Record = Mapping[str, Any]
Tools = list[Record] | None


@dataclass(frozen=True)
class Segment:
    """Tokens of one model input. `weights[i]` is the weight of predicting `ids[i]` in the loss, 0 for context."""

    ids: list[int]
    weights: list[float]

    def cut(self, length: int, *, keeps_end: bool) -> "Segment":
        """The first `length` tokens. With `keeps_end`, the last token of the segment replaces the last of those."""
        if len(self.ids) <= length:
            return self
        if keeps_end:
            return Segment([*self.ids[: length - 1], self.ids[-1]], [*self.weights[: length - 1], self.weights[-1]])
        return Segment(self.ids[:length], self.weights[:length])


class RecordEncoder:
    """Encodes records for one objective with one tokenizer."""

    def __init__(self, objective: str, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._special = SpecialTokens(tokenizer.backend_tokenizer)
        self._start, self._end = start_ids(tokenizer), end_ids(tokenizer)
        self._template = chat_template.default_template(tokenizer)
        # Marks that the template spells in ordinary tokens: spelled in a message, they would be the same tokens.
        marks = MARKS if objective in CHAT_OBJECTIVES else ()
        self._marks = [m for m in marks if m in (self._template or "") and m not in tokenizer.get_added_vocab()]
        self._objective = objective
        self._encode = self._by_objective()[objective]

    def _by_objective(self) -> dict[str, Callable[[Record], list[Segment]]]:
        return {
            "chat": lambda record: [self.encode_conversation(record["messages"], record.get("tools"))],
            "completion": lambda record: [self._encode_answer(record["prompt"], record["completion"])],
            "classification": lambda record: [self._encode_text(record["text"])],
            "seq2seq": lambda record: [self._encode_text(record["source"]), self._encode_text(record["target"])],
            "dpo": lambda record: [self._encode_preference(record, name) for name in ("chosen", "rejected")],
        }

    def segments(self, record: Record) -> list[Segment]:
        """Encode a record. Raises RecordRefused if the chat template refuses it, or its text spells a ChatML mark."""
        return self._encode(record)

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a prompt up to its answer: a user message in the chat template, or plain text."""
        if self._objective == "completion" or self._template is None:
            return [*self._start, *self.encode_text(text)]
        return self.prompt([{"role": "user", "content": text}])

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The messages of an encoded prompt as text, separated by blank lines, without what the chat template adds.

        Prompts with several turns keep the template's text.
        """
        if self._template is not None:
            text = str(self._tokenizer.decode(ids))
            for roles in (["user"], ["system", "user"]):
                contents = self._parse_prompt(roles, text)
                if contents is not None:
                    return "\n\n".join(contents)
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _parse_prompt(self, roles: Sequence[str], text: str) -> Sequence[str] | None:
        """The contents of the messages of a rendered prompt; None if it does not consist of exactly these roles."""
        holders = [f"\N{OBJECT REPLACEMENT CHARACTER}{number}" for number in range(len(roles))]
        messages = [{"role": role, "content": holder} for role, holder in zip(roles, holders, strict=True)]
        try:
            pattern = re.escape(self.render(messages, add_generation_prompt=True))
        except RecordRefused:  # templates may reject a system message
            return None
        for holder in holders:
            pattern = pattern.replace(holder, "(.*)")
        match = re.fullmatch(pattern, text, re.DOTALL)
        contents = match.groups() if match else ()
        marks = [*self._tokenizer.all_special_tokens, *self._marks]
        return contents if contents and not any(str(mark) in part for part in contents for mark in marks) else None

    # ---- one text ---------------------------------------------------------------------------------------------------

    def encode_text(self, text: str) -> list[int]:
        """The tokens of a text, without any that the tokenizer adds. Raises RecordRefused for a ChatML mark in it."""
        self._reject_marks(text)
        return self._special.encode_plain(text)

    def _reject_marks(self, text: str) -> None:
        mark = next((mark for mark in self._marks if mark in text), None)
        if mark is not None:
            raise RecordRefused("mark", mark=mark)

    def _encode_text(self, text: str) -> Segment:
        """A text with the special tokens that the tokenizer adds; sources and targets always end with end of text."""
        ids = [*self._start, *self.encode_text(text), *self._end]
        if self._objective == "seq2seq" and not self._end:
            ids.append(int(self._tokenizer.eos_token_id))
        return Segment(ids, [1.0] * len(ids))

    def _encode_answer(self, prompt: str, completion: str) -> Segment:
        """A prompt with weight 0, then a completion and an end-of-text token with weight 1."""
        before = [*self._start, *self.encode_text(prompt)]
        self._reject_marks(completion)
        joint = self._encode_parts([self._special.escape(text) for text in (prompt, completion)], [0.0, 1.0])
        after = [number for number, weight in zip(joint.ids, joint.weights, strict=True) if weight]
        after.append(int(self._tokenizer.eos_token_id))
        return Segment([*before, *after], [0.0] * len(before) + [1.0] * len(after))

    def _encode_preference(self, record: Record, name: str) -> Segment:
        """A prompt, text or messages, with its chosen or its rejected answer."""
        prompt, answer = record["prompt"], record[name]
        if isinstance(prompt, str):
            return self._encode_answer(prompt, answer)
        answers = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
        context = [{**message, "weight": 0.0} for message in prompt]
        return self.encode_conversation([*context, *answers], record.get("tools"))

    def _encode_parts(self, parts: Sequence[str], weights: Sequence[float]) -> Segment:
        """Parts of one text, escaped, each with the weight of its tokens.

        Where a token would span two parts, such as a line break and an empty line, they are encoded one by one, because
        at inference a prompt ends between them.
        """
        encoded = self._special.encode(parts)
        if any(start < end < stop for start, stop in encoded.offsets for end in encoded.ends):
            return self._encode_one_by_one(parts, weights)
        spans = list(zip([0, *encoded.ends], encoded.ends, weights, strict=False))
        return Segment(encoded.ids, [_weight(start, stop, spans) for start, stop in encoded.offsets])

    def _encode_one_by_one(self, parts: Sequence[str], weights: Sequence[float]) -> Segment:
        segment = Segment([], [])
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            # Behind a line break, a tokenizer does not add the space that it puts before a text.
            encoded = self._special.encode(["\n" if number else "", part])
            edge = encoded.ends[0]
            ids = [i for i, (start, _stop) in zip(encoded.ids, encoded.offsets, strict=True) if start >= edge]
            if any(start < edge < stop for start, stop in encoded.offsets):
                ids = self._special.encode([part]).ids
            segment.ids.extend(ids)
            segment.weights.extend([weight] * len(ids))
        return segment

    # ---- conversations ----------------------------------------------------------------------------------------------

    def encode_conversation(self, messages: Sequence[ChatMessage], tools: Tools = None) -> Segment:
        """A conversation in the tokenizer's chat template. Only answers have weight: that of their message, default 1.

        An answer spans what the model has to write after the generation prompt, up to and including what ends its turn.
        Special tokens that a message spells are ordinary text. Raises RecordRefused.
        """
        plain, tools = self._escaped(messages), self._escaped_value(tools)
        text = self.render(plain, tools)
        self._require_rendered(plain, tools, text)
        edges, weights = [0], [0.0]
        for number, message in enumerate(messages):
            if message["role"] == "assistant" and message.get("weight", 1.0) > 0:
                edges += self._span(plain, number, text, tools)
                weights += [float(message.get("weight", 1.0)), 0.0]
        self._require_messages(plain, tools, text)
        if edges != sorted(edges):
            raise RecordRefused("order")
        return self._encode_parts([text[start:end] for start, end in pairwise([*edges, len(text)])], weights)

    def _require_rendered(self, messages: Sequence[ChatMessage], tools: Tools, text: str) -> None:
        """Raises RecordRefused if the chat template leaves out tools, tool calls or reasoning."""
        if tools and self.render(messages) == text:
            raise RecordRefused("tools")
        for key in ("tool_calls", "reasoning_content"):
            others = [{**message, key: _changed(message[key])} if key in message else message for message in messages]
            if others != list(messages) and self.render(others, tools) == text:
                raise RecordRefused("key", key=key)

    def _require_messages(self, messages: Sequence[ChatMessage], tools: Tools, text: str) -> None:
        """Raises RecordRefused if the chat template leaves out a message."""
        for number, spoken in enumerate(messages):
            content = spoken["content"]
            is_checked = spoken["role"] == "system" or str(content).strip() not in text
            if is_checked and isinstance(content, str) and content.strip():
                others = [*messages[:number], {**spoken, "content": f"{content} -"}, *messages[number + 1 :]]
                if self.render(others, tools) == text:
                    raise RecordRefused("message", number=number + 1, role=spoken["role"])

    def _span(self, messages: Sequence[ChatMessage], number: int, text: str, tools: Tools) -> list[int]:
        """Start and end of an answer in the rendered conversation.

        The place of its text is where the conversation differs from one with another answer. The answer starts where
        the generation prompt ends, or differs: some templates open a block for thoughts in it that is not in answers.
        """
        other = self.render(_with_answer(messages, number, PLACEHOLDER), tools)
        if PLACEHOLDER not in other:
            raise RecordRefused("answer")
        first = _common_prefix(text, other)
        last = len(text) - min(_common_prefix(text[::-1], other[::-1]), len(text) - first)
        start = min(first, _common_prefix(text, self._prompt_before(messages, number, text, tools)))
        if text.startswith(self._end_of_turn, last):
            last += len(self._end_of_turn)
        return [start, last]

    def _prompt_before(self, messages: Sequence[ChatMessage], number: int, text: str, tools: Tools) -> str:
        """The prompt of an answer. Raises RecordRefused if it is not what precedes the answer in the conversation."""
        if number == 0:
            return text  # no messages, so no prompt: where the answer's text starts decides
        prompt = self.render(messages[:number], tools, add_generation_prompt=True)
        if not text.startswith(prompt):
            others = _with_answer(messages, number - 1, PLACEHOLDER)[:number]
            other = self.render(others, tools, add_generation_prompt=True)
            history = len(prompt) - len(other.rpartition(PLACEHOLDER)[2])
            if PLACEHOLDER not in other or not text.startswith(prompt[:history]):
                raise RecordRefused("differently")
        return prompt

    @cached_property
    def _end_of_turn(self) -> str:
        """What the template puts after an answer, without white space."""
        return chat_template.text_after_answer(self._tokenizer).rstrip()

    def prompt(self, messages: Sequence[ChatMessage], tools: Tools = None) -> list[int]:
        """The tokens of a conversation up to the generation prompt. Raises RecordRefused."""
        plain, tools = self._escaped(messages), self._escaped_value(tools)
        text = self.render(plain, tools, add_generation_prompt=True)
        if tools and self.render(plain, add_generation_prompt=True) == text:
            raise RecordRefused("tools")
        return self._special.encode([text]).ids

    def _escaped(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The messages without their weights, and with placeholders for special tokens that they spell."""
        return [
            {key: value if key == "role" else self._escaped_value(value) for key, value in message.items()}
            for message in ({key: value for key, value in m.items() if key != "weight"} for m in messages)
        ]

    def _escaped_value(self, value: Any) -> Any:
        """A value with placeholders in its strings and keys. Raises RecordRefused for a ChatML mark in one."""
        if isinstance(value, str):
            self._reject_marks(value)
            return self._special.escape(value)
        if isinstance(value, Mapping):
            return {self._escaped_value(key): self._escaped_value(part) for key, part in value.items()}
        return [self._escaped_value(part) for part in value] if isinstance(value, list) else value

    def render(
        self, messages: Sequence[ChatMessage], tools: Tools = None, *, add_generation_prompt: bool = False
    ) -> str:
        """Apply the chat template to a conversation. Raises RecordRefused if the template cannot render it."""
        try:
            return chat_template.render(self._tokenizer, messages, tools, add_generation_prompt=add_generation_prompt)
        except chat_template.RenderedTooLong as failure:
            raise RecordRefused("output", limit=failure.limit) from None
        except Failure as failure:
            raise RecordRefused("template", why=failure.values["why"]) from None


def _with_answer(messages: Sequence[ChatMessage], number: int, content: str) -> list[ChatMessage]:
    """The messages with another text in one of them, and nothing else than a text."""
    role = messages[number]["role"]
    return [*messages[:number], {"role": role, "content": content}, *messages[number + 1 :]]


def _common_prefix(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _changed(value: Any) -> Any:
    """A reasoning, or tool calls, that a template renders differently unless it leaves them out."""
    if isinstance(value, str):
        return f"{value} -"
    return [{**call, "function": {**call["function"], "name": f"{call['function']['name']}_"}} for call in value]


def _weight(start: int, end: int, spans: Sequence[tuple[int, int, float]]) -> float:
    """The weight of a token for text[start:end]: that of the span in which it starts."""
    return next((weight for first, last, weight in spans if first <= start < last and start < end), 0.0)
