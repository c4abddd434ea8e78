"""Continues a prompt with a model, token by token. Imports torch and transformers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from trainer.data import chat_template
from trainer.data.chat_template import ChatMessage
from trainer.data.detokenizer import Detokenizer
from trainer.data.record_encoding import RecordEncoder
from trainer.data.tokenizer import encode_prompt, start_of_text_id
from trainer.inference.loading_progress import OnProgress, loading_progress
from trainer.inference.sampling import SamplingSettings, TokenChoice, choose
from trainer.inference.text_pieces import TextPiece, TokenDecoder, text_pieces
from trainer.modeling.architectures import saved_class
from trainer.planning.context_length import context_length


class NoChatTemplate(ValueError):
    """A model has no chat template, which a conversation needs."""

    def __init__(self) -> None:
        super().__init__("the model has no chat template")


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


def pick_device() -> str:
    """The GPU with the most memory free, or the CPU."""
    count = torch.cuda.device_count()
    return f"cuda:{max(range(count), key=lambda i: int(torch.cuda.mem_get_info(i)[0]))}" if count else "cpu"


def is_memory_error(error: BaseException) -> bool:
    """Whether an allocation failed, in Python or in torch."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def load_model(checkpoint_dir: Path, device: str, on_progress: OnProgress | None = None) -> PreTrainedModel:
    """Open the weights of a checkpoint with the head that they have: fp32 on a CPU, as stored on a GPU."""
    transformers_logging.disable_progress_bar()
    dtype: Any = torch.float32 if device == "cpu" else "auto"
    config = AutoConfig.from_pretrained(checkpoint_dir, local_files_only=True)
    with loading_progress(checkpoint_dir, on_progress) if on_progress else nullcontext():
        model: PreTrainedModel = saved_class(config).from_pretrained(
            checkpoint_dir, config=config, dtype=dtype, local_files_only=True
        )
    return model.to(device).eval()


def load(checkpoint_dir: Path, device: str) -> LoadedModel:
    """Open a checkpoint to generate from, with its tokenizer."""
    model, tokenizer = load_model(checkpoint_dir, device), load_tokenizer(checkpoint_dir)
    chat_template.set_stop_tokens(model, tokenizer)
    return LoadedModel(model, tokenizer)


def load_tokenizer(checkpoint_dir: Path) -> PreTrainedTokenizerFast:
    """Open the tokenizer of a checkpoint."""
    # Not AutoTokenizer: of a Qwen2 it replaces the pre-tokenizer that the model was trained with by Qwen's own.
    return PreTrainedTokenizerFast.from_pretrained(checkpoint_dir, local_files_only=True)


def stream(
    loaded: LoadedModel,
    prompt: str | list[int],
    *,
    max_tokens: int,
    stop: Sequence[str] = (),
    is_stopped: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Iterator[TextPiece]:
    """Continue a prompt, given as text or as tokens, beside a training or for one user; nodes use engine.py.

    `settings` are those of SamplingSettings; the same seed gives the same text. Raises PromptTooLong at once.
    """
    ids = loaded.encode(prompt)
    choices = _choices(loaded.model, ids, SamplingSettings(**settings), max_tokens, is_stopped)
    return text_pieces(
        ([choice] for choice in choices), loaded.detokenizer(ids), loaded.stop_token_ids, stop, is_stopped
    )


def _choices(
    model: PreTrainedModel,
    prompt: list[int],
    settings: SamplingSettings,
    max_tokens: int,
    is_stopped: Callable[[], bool],
) -> Iterator[TokenChoice]:
    cache = DynamicCache(config=model.config)
    feed, text = prompt, list[int]()
    for _ in range(min(max_tokens, context_of(model) - len(prompt) + 1)):
        if is_stopped():
            return
        choice = choose(_next_scores(model, feed, cache), settings, prompt, text)
        yield choice
        text.append(choice.token)
        feed = [choice.token]


@torch.no_grad()
def _next_scores(model: PreTrainedModel, feed: list[int], cache: DynamicCache) -> Tensor:
    """The scores of the next token in fp32 on the CPU; the cache grows by what was fed."""
    ids = torch.tensor([feed], device=model.device)
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    scores: Tensor = output.logits[0, -1].float().cpu()
    return scores
