"""Continues a prompt with a model, token by token. Imports torch and transformers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from trainer.data import chat_template
from trainer.data.chat_template import ChatMessage
from trainer.data.detokenizer import Detokenizer
from trainer.data.record_encoding import RecordEncoder
from trainer.data.tokenizer import encode_prompt, start_of_text_id
from trainer.planning.context_length import context_length

FinishReason = Literal["stop", "length", "cancelled"]


class NoChatTemplate(ValueError):
    """A model has no chat template, which a conversation needs."""

    def __init__(self) -> None:
        super().__init__("the model has no chat template")


class TokenDecoder(Protocol):
    """Turns generated tokens into text, one at a time. See trainer/data/detokenizer.py."""

    def push(self, token: int) -> str: ...
    def rest(self, *, is_cut: bool = False) -> str: ...


class TextModel(Protocol):
    """A model with its tokenizer, wherever that is."""

    @property
    def model(self) -> PreTrainedModel: ...
    @property
    def stop_token_ids(self) -> set[int]: ...
    def encode(self, prompt: str | list[int]) -> list[int]: ...
    def detokenizer(self, prompt: Sequence[int]) -> TokenDecoder: ...


class PromptTooLong(ValueError):
    """A prompt has more tokens than the model can read."""

    def __init__(self, num_tokens: int, limit: int) -> None:
        super().__init__(f"prompt has {num_tokens} tokens, but the model reads at most {limit}")
        self.num_tokens, self.limit = num_tokens, limit


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate. Any number of streams may use it at once."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    @property
    def context(self) -> int:
        """The longest sequence that the model can read, in tokens."""
        return context_of(self.model)

    @property
    def stop_token_ids(self) -> set[int]:
        """The tokens that end a text."""
        return set(chat_template.stop_token_ids(self.model, chat_template.tokenizer_stop_ids(self.tokenizer)))

    def encode(self, prompt: str | list[int]) -> list[int]:
        """The prompt's tokens, as in training; an empty prompt starts a new text. Raises PromptTooLong."""
        ids = encode_prompt(self.tokenizer, prompt) if isinstance(prompt, str) else prompt
        ids = ids or [start_of_text_id(self.tokenizer)]
        require_length(self.model, ids)
        return ids

    def detokenizer(self, prompt: Sequence[int]) -> TokenDecoder:
        """A decoder of the tokens that follow a prompt."""
        return Detokenizer(self.tokenizer.backend_tokenizer, prompt)

    def encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """The tokens of a conversation in the model's chat template, as in training, up to the answer.

        Raises NoChatTemplate, and RecordRefused if the template refuses the messages.
        """
        if chat_template.default_template(self.tokenizer) is None:
            raise NoChatTemplate
        return self._encoder.prompt(messages)

    @cached_property
    def _encoder(self) -> RecordEncoder:
        return RecordEncoder("chat", self.tokenizer)


def context_of(model: PreTrainedModel) -> int:
    """The longest sequence that a model can read, in tokens."""
    length = context_length(model.config)
    assert length is not None, "the positions of a decoder have an end"
    return length


def require_length(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Raises PromptTooLong for more tokens than a model can read."""
    if len(ids) > context_of(model):
        raise PromptTooLong(len(ids), context_of(model))


@dataclass(frozen=True)
class TextPiece:
    """The next part of the text. Only the last piece has a finish reason; its text may be empty."""

    text: str
    num_tokens: int  # generated so far
    finish_reason: FinishReason | None = None


def load_model(checkpoint_dir: Path, device: str) -> PreTrainedModel:
    """Open the weights of a checkpoint to generate from: fp32 on a CPU, as stored on a GPU."""
    transformers_logging.disable_progress_bar()
    dtype: Any = torch.float32 if device == "cpu" else "auto"
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint_dir, dtype=dtype, local_files_only=True)
    return model.to(device).eval()


def load(checkpoint_dir: Path, device: str) -> LoadedModel:
    """Open a checkpoint to generate from, with its tokenizer."""
    model = load_model(checkpoint_dir, device)
    # Not AutoTokenizer: of a Qwen2 it replaces the pre-tokenizer that the model was trained with by Qwen's own.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint_dir, local_files_only=True)
    chat_template.set_stop_tokens(model, tokenizer)
    return LoadedModel(model, tokenizer)


def stream(
    loaded: TextModel,
    prompt: str | list[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    stop: list[str] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[TextPiece]:
    """Continue the prompt, given as text or as tokens. The same seed gives the same text; temperature 0 always takes
    the likeliest token.

    Whole characters only are handed out, and never a part of a stop string. Raises ValueError at once for a prompt
    longer than the context.
    """
    ids = loaded.encode(prompt)
    sampler = Sampler(temperature, top_p, top_k, seed)
    return _pieces(loaded, ids, max_tokens, sampler, StopFilter(stop or []), is_stopped)


def _pieces(
    loaded: TextModel,
    ids: list[int],
    max_tokens: int,
    sampler: "Sampler",
    stops: "StopFilter",
    is_stopped: Callable[[], bool],
) -> Iterator[TextPiece]:
    detokenizer = loaded.detokenizer(ids)
    ends = loaded.stop_token_ids
    cache = DynamicCache(config=loaded.model.config)
    feed = ids
    reason: FinishReason = "length"
    count = 0
    for count in range(1, min(max_tokens, context_of(loaded.model) - len(ids) + 1) + 1):
        if is_stopped():
            reason, count = "cancelled", count - 1
            break
        token = sampler.pick(_next_logits(loaded.model, feed, cache))
        feed = [token]
        if token in ends:
            reason = "stop"
            break
        text = stops.push(detokenizer.push(token))
        if stops.hit:
            yield TextPiece(text, count, "stop")
            return
        if text:
            yield TextPiece(text, count)
    text = stops.push(detokenizer.rest(is_cut=reason != "stop"))
    yield TextPiece(text, count, "stop") if stops.hit else TextPiece(text + stops.rest(), count, reason)


@torch.no_grad()
def _next_logits(model: PreTrainedModel, feed: list[int], cache: DynamicCache) -> Tensor:
    """The scores of the next token in fp32 on the CPU; the cache grows by what was fed."""
    ids = torch.tensor([feed], device=model.device)
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[0, -1].float().cpu()
    return logits


class Sampler:
    """Picks tokens with its own random generator, so that streams do not affect each other."""

    def __init__(self, temperature: float, top_p: float, top_k: int, seed: int) -> None:
        self._temperature, self._top_p, self._top_k = temperature, top_p, top_k
        self._generator = torch.Generator().manual_seed(seed)

    def pick(self, logits: Tensor) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        values, ids = (logits / self._temperature).sort(descending=True, stable=True)
        if self._top_k:
            values, ids = values[: self._top_k], ids[: self._top_k]
        probabilities = values.softmax(0)
        if self._top_p < 1:
            # The likeliest token stays, then those before which less than top_p is reached.
            probabilities = probabilities[: int((probabilities.cumsum(0) < self._top_p).sum()) + 1]
        return int(ids[torch.multinomial(probabilities, 1, generator=self._generator)])


class StopFilter:
    """Holds text back while it may be the beginning of a stop string."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._pending = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Add text and return what is safe to show."""
        self._pending += text
        places = [place for stop in self._stops if (place := self._pending.find(stop)) >= 0]
        if places:
            self.hit = True
            return self._pending[: min(places)]
        keep = max((_overlap(self._pending, stop) for stop in self._stops), default=0)
        end = len(self._pending) - keep
        safe = self._pending[:end]
        self._pending = self._pending[end:]
        return safe

    def rest(self) -> str:
        """The text that is still pending when the generation ends without a stop string."""
        rest = self._pending
        self._pending = ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of the text that begins the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
