"""Encodes a record as segments of tokens, each token with its weight in the loss. Imports transformers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from trainer.failure import Failure

# For tokenizers without a chat template: ChatML spelled in ordinary tokens; the end-of-text token ends an answer.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}
{{- (eos_token if message['role'] == 'assistant' else '<|im_end|>') + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

MARKS = ("<|im_start|>", "<|im_end|>")

Record = Mapping[str, Any]
ChatMessage = Mapping[str, Any]


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


class SpecialTokenInText(ValueError):
    """A text contains a special token or a ChatML mark, which could impersonate another speaker."""


class RecordEncoder:
    """Encodes records for one objective with one tokenizer."""

    def __init__(self, objective: str, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        marks = [mark for mark in MARKS if mark in (tokenizer.chat_template or "")]
        self._special = [*(str(token) for token in tokenizer.all_special_tokens), *marks]
        self._objective = objective
        self._encode = self._by_objective()[objective]

    def _by_objective(self) -> dict[str, Callable[[Record], list[Segment]]]:
        return {
            "chat": lambda record: [self.encode_conversation(record["messages"])],
            "completion": lambda record: [self._encode_answer(record["prompt"], record["completion"])],
            "classification": lambda record: [self._encode_text(record["text"])],
            "seq2seq": lambda record: [self._encode_text(record["source"]), self._encode_text(record["target"])],
            "dpo": lambda record: [self._encode_preference(record, name) for name in ("chosen", "rejected")],
        }

    def segments(self, record: Record) -> list[Segment]:
        """Encode a record. Raises SpecialTokenInText, and Failure for an unusable chat template."""
        return self._encode(record)

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a prompt up to its answer: a user message in the chat template, or plain text."""
        if self._objective == "completion" or self._tokenizer.chat_template is None:
            return [*self._start(), *self._tokenizer(text, add_special_tokens=False)["input_ids"]]
        return self.prompt([{"role": "user", "content": text}])

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The messages of an encoded prompt as text, separated by blank lines, without what the chat template adds.

        Prompts with several turns keep the template's text.
        """
        if self._tokenizer.chat_template is not None:
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
        except Failure:  # templates may reject a system message
            return None
        for holder in holders:
            pattern = pattern.replace(holder, "(.*)")
        match = re.fullmatch(pattern, text, re.DOTALL)
        contents = match.groups() if match else ()
        return contents if contents and not any(mark in part for part in contents for mark in self._special) else None

    # ---- one text ---------------------------------------------------------------------------------------------------

    def _ids(self, text: str) -> list[int]:
        self._reject_special_tokens(text)
        return [int(number) for number in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _reject_special_tokens(self, text: str) -> None:
        if any(token in text for token in self._special):
            raise SpecialTokenInText

    def _encode_text(self, text: str) -> Segment:
        """A text with the special tokens that the tokenizer adds, and an end-of-text token if it adds none."""
        self._reject_special_tokens(text)
        ids = [int(number) for number in self._tokenizer(text)["input_ids"]]
        if ids[-1:] != [self._tokenizer.eos_token_id] and ids[-1:] != [self._tokenizer.sep_token_id]:
            ids.append(int(self._tokenizer.eos_token_id))
        return Segment(ids, [1.0] * len(ids))

    def _encode_answer(self, prompt: str, completion: str) -> Segment:
        """A prompt with weight 0, then a completion and an end-of-text token with weight 1."""
        before = [*self._start(), *self._ids(prompt)]
        after = [*self._ids(completion), int(self._tokenizer.eos_token_id)]
        return Segment([*before, *after], [0.0] * len(before) + [1.0] * len(after))

    def _start(self) -> list[int]:
        """The beginning-of-text token, if the model has a separate one."""
        number = self._tokenizer.bos_token_id
        return [] if number is None or number == self._tokenizer.eos_token_id else [int(number)]

    def _encode_preference(self, record: Record, name: str) -> Segment:
        """A prompt, text or messages, with its chosen or its rejected answer."""
        prompt, answer = record["prompt"], record[name]
        if isinstance(prompt, str):
            return self._encode_answer(prompt, answer)
        answers = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
        context = [{**message, "weight": 0.0} for message in prompt]
        return self.encode_conversation([*context, *answers])

    # ---- conversations ----------------------------------------------------------------------------------------------

    def encode_conversation(self, messages: Sequence[ChatMessage]) -> Segment:
        """A conversation in the tokenizer's chat template. Only answers have weight: that of their message, default 1.

        An answer spans what the template adds after the generation prompt, including the token that ends the turn. Its
        place is determined by rendering the conversation up to it. Raises SpecialTokenInText and Failure.
        """
        for message in messages:
            self._reject_special_tokens(message["content"])
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
            return self._encode_parts(text, edges, spans)
        return Segment(
            [int(number) for number in encoding["input_ids"]], [_weight(start, end, spans) for start, end in offsets]
        )

    def _encode_parts(self, text: str, edges: Sequence[int], spans: Sequence[tuple[int, int, float]]) -> Segment:
        """A conversation in which a token would span the edge of an answer, such as a line break and an empty line.

        At inference the prompt ends at that edge, so the parts are encoded separately.
        """
        segment = Segment([], [])
        for start, end in pairwise([0, *edges, len(text)]):
            ids = self._tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
            segment.ids.extend(int(number) for number in ids)
            segment.weights.extend([_weight(start, end, spans)] * len(ids))
        return segment

    def _span(self, messages: Sequence[ChatMessage], number: int, text: str) -> tuple[int, int]:
        """Start and end of an answer in the rendered conversation: after the generation prompt, and the turn's end."""
        before = self.render(messages[:number], add_generation_prompt=True)
        after = self.render(messages[: number + 1])
        if not (text.startswith(after.rstrip()) and after.startswith(before)):
            raise Failure("chat_template_unusable", why="later messages change how it renders earlier ones")
        return len(before), max(len(before), len(after.rstrip()))

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """The tokens of a conversation up to the generation prompt."""
        text = self.render(messages, add_generation_prompt=True)
        return [int(number) for number in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = False) -> str:
        """Apply the chat template to a conversation. Raises Failure if the template cannot render it."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise Failure("chat_template_unusable", why=str(error)[:200]) from None


def _weight(start: int, end: int, spans: Sequence[tuple[int, int, float]]) -> float:
    """The weight of a token for text[start:end]: that of the span in which it starts."""
    return next((weight for first, last, weight in spans if first <= start < last and start < end), 0.0)
