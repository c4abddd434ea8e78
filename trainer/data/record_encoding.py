"""Turns one record into segments of tokens, each token with the weight that predicting it has. Imports transformers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from trainer.failure import Failure

# For tokenizers that bring no template: ChatML, its marks in ordinary tokens, an answer closed by the end of text.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}
{{- (eos_token if message['role'] == 'assistant' else '<|im_end|>') + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

MARKS = ("<|im_start|>", "<|im_end|>")

Record = Mapping[str, Any]
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Segment:
    """Tokens that the model reads in one go. `weights[i]` is how much it counts to predict `ids[i]`; 0 is only read."""

    ids: list[int]
    weights: list[float]

    def cut(self, length: int, *, keeps_end: bool) -> "Segment":
        """Its first tokens; the last one is kept where it marks the end."""
        if len(self.ids) <= length:
            return self
        if keeps_end:
            return Segment([*self.ids[: length - 1], self.ids[-1]], [*self.weights[: length - 1], self.weights[-1]])
        return Segment(self.ids[:length], self.weights[:length])


class SpecialTokenInText(ValueError):
    """A text spells a special token, or a mark of ChatML: read as one, it could pass for another speaker."""


class RecordEncoder:
    """Encodes the records of one objective with one tokenizer."""

    def __init__(self, objective: str, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        marks = [mark for mark in MARKS if mark in (tokenizer.chat_template or "")]
        self._special = [*(str(token) for token in tokenizer.all_special_tokens), *marks]
        self._objective = objective
        self._encode = self._by_objective()[objective]

    def _by_objective(self) -> dict[str, Callable[[Record], list[Segment]]]:
        return {
            "chat": lambda record: [self.encode_conversation(record["messages"])],
            "completion": lambda record: [self._answered(record["prompt"], record["completion"])],
            "classification": lambda record: [self._whole(record["text"])],
            "seq2seq": lambda record: [self._whole(record["source"]), self._whole(record["target"])],
            "dpo": lambda record: [self._preferred(record, "chosen"), self._preferred(record, "rejected")],
        }

    def segments(self, record: Record) -> list[Segment]:
        """The segments of a record. Raises Unsafe, and Failure for a chat template that cannot be used."""
        return self._encode(record)

    def encode_prompt(self, text: str) -> list[int]:
        """A prompt as it stands before the answers that the objective learns: a message, or a text."""
        if self._objective == "completion" or self._tokenizer.chat_template is None:
            return [*self._start(), *self._tokenizer(text, add_special_tokens=False)["input_ids"]]
        return self.prompt([{"role": "user", "content": text}])

    def prompt_text(self, ids: Sequence[int]) -> str:
        """What was said in a prompt that `asked` or a record made: of a conversation its messages, a line between them,
        without what the template writes around them. Where there were answers before, the template's words stay.
        """
        if self._tokenizer.chat_template is not None:
            text = str(self._tokenizer.decode(ids))
            for roles in (["user"], ["system", "user"]):
                said = self._said(roles, text)
                if said is not None:
                    return "\n\n".join(said)
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _said(self, roles: Sequence[str], text: str) -> Sequence[str] | None:
        """The messages of these roles in a rendered prompt; None where it has others."""
        holders = [f"\N{OBJECT REPLACEMENT CHARACTER}{number}" for number in range(len(roles))]
        messages = [{"role": role, "content": holder} for role, holder in zip(roles, holders, strict=True)]
        try:
            pattern = re.escape(self.render(messages, add_generation_prompt=True))
        except Failure:  # there are templates that know no system
            return None
        for holder in holders:
            pattern = pattern.replace(holder, "(.*)")
        found = re.fullmatch(pattern, text, re.DOTALL)
        said = found.groups() if found else ()
        return said if said and not any(mark in part for part in said for mark in self._special) else None

    # ---- one text ---------------------------------------------------------------------------------------------------

    def _ids(self, text: str) -> list[int]:
        self._require_plain(text)
        return [int(number) for number in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _require_plain(self, text: str) -> None:
        if any(token in text for token in self._special):
            raise SpecialTokenInText

    def _whole(self, text: str) -> Segment:
        """A text with the special tokens that the tokenizer itself puts around it, or else before an end of text."""
        self._require_plain(text)
        ids = [int(number) for number in self._tokenizer(text)["input_ids"]]
        if ids[-1:] != [self._tokenizer.eos_token_id] and ids[-1:] != [self._tokenizer.sep_token_id]:
            ids.append(int(self._tokenizer.eos_token_id))
        return Segment(ids, [1.0] * len(ids))

    def _answered(self, prompt: str, completion: str) -> Segment:
        """A prompt that is read and a completion that is learnt, with the end of text behind it."""
        before = [*self._start(), *self._ids(prompt)]
        after = [*self._ids(completion), int(self._tokenizer.eos_token_id)]
        return Segment([*before, *after], [0.0] * len(before) + [1.0] * len(after))

    def _start(self) -> list[int]:
        """The token that begins a text, where the model has one of its own."""
        number = self._tokenizer.bos_token_id
        return [] if number is None or number == self._tokenizer.eos_token_id else [int(number)]

    def _preferred(self, record: Record, which: str) -> Segment:
        """A prompt, as text or as messages, with one of its two answers."""
        prompt, answer = record["prompt"], record[which]
        if isinstance(prompt, str):
            return self._answered(prompt, answer)
        answers = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
        read = [{**message, "weight": 0.0} for message in prompt]
        return self.encode_conversation([*read, *answers])

    # ---- conversations ----------------------------------------------------------------------------------------------

    def encode_conversation(self, messages: Sequence[Message]) -> Segment:
        """A conversation as the tokenizer's template writes it. Answers count, by the weight of their message (else 1).

        What counts of an answer is what the template adds for it behind the generation prompt, found by rendering the
        conversation up to it, and including the token that ends the turn.
        """
        for message in messages:
            self._require_plain(message["content"])
        plain = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        text = self.render(plain)
        spans = []
        for number, message in enumerate(messages):
            if message["role"] == "assistant" and message.get("weight", 1.0) > 0:
                start, end = self._span(plain, number, text)
                spans.append((start, end, float(message.get("weight", 1.0))))
        encoding = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets, edges = encoding["offset_mapping"], [edge for span in spans for edge in span[:2]]
        if any(start < edge < end for edge in edges for start, end in offsets):
            return self._in_parts(text, edges, spans)
        return Segment(
            [int(number) for number in encoding["input_ids"]], [_weight(start, end, spans) for start, end in offsets]
        )

    def _in_parts(self, text: str, edges: Sequence[int], spans: Sequence[tuple[int, int, float]]) -> Segment:
        """A conversation where a token would reach over the edge of an answer, such as a line's end before an empty
        line: the model will be given the text up to that edge, so each part is encoded alone.
        """
        segment = Segment([], [])
        for start, end in pairwise([0, *edges, len(text)]):
            ids = self._tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
            segment.ids.extend(int(number) for number in ids)
            segment.weights.extend([_weight(start, end, spans)] * len(ids))
        return segment

    def _span(self, messages: Sequence[Message], number: int, text: str) -> tuple[int, int]:
        """Where an answer stands in the rendered conversation, from behind the generation prompt to the turn's end."""
        before = self.render(messages[:number], add_generation_prompt=True)
        after = self.render(messages[: number + 1])
        if not (text.startswith(after.rstrip()) and after.startswith(before)):
            raise Failure("chat_template_unusable", why="what comes later changes how it writes what came before")
        return len(before), max(len(before), len(after.rstrip()))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation as a model reads it before it answers."""
        text = self.render(messages, add_generation_prompt=True)
        return [int(number) for number in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """A conversation as text. Raises Failure where the template cannot write it."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise Failure("chat_template_unusable", why=str(error)[:200]) from None


def _weight(start: int, end: int, spans: Sequence[tuple[int, int, float]]) -> float:
    """The weight of a token that stands for these characters."""
    return next((weight for first, last, weight in spans if first <= start < last and start < end), 0.0)
