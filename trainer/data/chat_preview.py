"""Shows what a chat template makes of a conversation, and what of it a model learns. Imports no torch."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel
from transformers import PreTrainedTokenizerFast

from trainer.data import tokenizer as tokenizers
from trainer.data.chat_template import ChatMessage, end_of_turn_id, job_template
from trainer.data.encoding_budget import encoding_budget, enforced
from trainer.data.record_encoding import RecordEncoder
from trainer.processes.child_limits import data_bytes


class RenderedPart(BaseModel):
    """A part of a rendered conversation; `is_learned` if the model is trained to write it."""

    text: str
    is_learned: bool


class TemplatePreview(BaseModel):
    """A conversation as it is trained on, and as a prompt without its last answer.

    `end_of_turn` is the token that ends an answer; None if the template writes no such token.
    """

    parts: list[RenderedPart]
    prompt: str
    end_of_turn: str | None


def preview(directory: Path | None, template: str | None, messages: Sequence[ChatMessage]) -> TemplatePreview:
    """Preview the template of a job whose base model lies in a directory, if it has one.

    Template and tokenizer have the budget of a record: exceeding its time ends this process by SIGPROF.

    `template` is a preset's name or Jinja text; None for the base model's own. Raises RecordRefused if the template
    refuses the messages, Failure for a tokenizer that cannot be read, and MemoryError.
    """
    tokenizer = tokenizers.untrained() if directory is None else tokenizers.open_base(directory)
    tokenizer.chat_template = job_template(template, tokenizer)
    size = sum(len(str(message).encode(errors="replace")) for message in messages)
    with enforced(encoding_budget(size), data_bytes()):
        return _preview(tokenizer, messages)


def _preview(tokenizer: PreTrainedTokenizerFast, messages: Sequence[ChatMessage]) -> TemplatePreview:
    encoder = RecordEncoder("chat", tokenizer)
    segment = encoder.encode_conversation(messages)
    parts = [
        RenderedPart(text=str(tokenizer.decode([number for number, _weight in run])), is_learned=is_learned)
        for is_learned, run in groupby(zip(segment.ids, segment.weights, strict=True), lambda pair: pair[1] > 0)
    ]
    question = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    end = end_of_turn_id(tokenizer)
    return TemplatePreview(
        parts=parts,
        prompt=str(tokenizer.decode(encoder.prompt(question))),
        end_of_turn=None if end is None else str(tokenizer.convert_ids_to_tokens(end)),
    )
