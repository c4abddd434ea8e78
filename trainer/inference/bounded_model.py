"""A loaded model whose tokenizer and chat template have limits, for a process with one thread of Python.

Both are programs that may compute for ever. Where they run in the process of the model, the kernel ends that process by
SIGPROF as soon as one call takes more computing time than its text may need. Imports torch and transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.data import chat_template
from trainer.data.chat_template import ChatMessage
from trainer.data.encoding_budget import LOADING, encoding_budget, timed
from trainer.inference import generation
from trainer.inference.generation import LoadedModel
from trainer.inference.text_pieces import TokenDecoder


class BoundedTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc]
    """A tokenizer whose calls have the computing time that their texts may need."""

    def _encode_plus(self, text: Any, *rest: Any, **named: Any) -> Any:
        with timed(_seconds(text)):
            return super()._encode_plus(text, *rest, **named)

    def _decode(self, token_ids: Any, *rest: Any, **named: Any) -> str:
        with timed(_seconds(token_ids)):
            return str(super()._decode(token_ids, *rest, **named))

    def apply_chat_template(self, conversation: Any, *rest: Any, **named: Any) -> Any:
        with timed(_seconds([message.get("content") for message in conversation])):
            return super().apply_chat_template(conversation, *rest, **named)


@dataclass(frozen=True)
class BoundedModel(LoadedModel):
    """A model with such a tokenizer. Its decoder has limits, too."""

    def encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        with timed(_seconds([message.get("content") for message in messages])):
            return super().encode_chat(messages)

    def detokenizer(self, prompt: Sequence[int]) -> TokenDecoder:
        return _BoundedDecoder(super().detokenizer(prompt))


class _BoundedDecoder:
    """A decoder whose calls have limits (a TokenDecoder)."""

    def __init__(self, decoder: TokenDecoder) -> None:
        self._decoder = decoder

    def push_all(self, tokens: Sequence[int]) -> list[str]:
        with timed(_seconds(tokens)):
            return self._decoder.push_all(tokens)

    def rest(self, *, is_cut: bool = False) -> str:
        with timed(_seconds("")):
            return self._decoder.rest(is_cut=is_cut)


def load(checkpoint_dir: Path, device: str) -> BoundedModel:
    """Open a checkpoint to evaluate it, with its tokenizer."""
    model = generation.load_model(checkpoint_dir, device)
    with timed(LOADING.cpu_seconds):
        tokenizer = generation.load_tokenizer(checkpoint_dir)
    # The class is changed in place: transformers treats a tokenizer that another class opens as one of another kind.
    tokenizer.__class__ = BoundedTokenizer
    chat_template.set_stop_tokens(model, tokenizer)
    return BoundedModel(model, tokenizer)


def _seconds(argument: Any) -> float:
    """The computing time of a call with a text, tokens or several of these."""
    return encoding_budget(_num_bytes(argument)).cpu_seconds


def _num_bytes(argument: Any) -> int:
    if isinstance(argument, str):
        return len(argument.encode(errors="replace"))
    return sum(map(_num_bytes, argument)) if isinstance(argument, list | tuple) else 1
