"""How well a decoder predicts texts, in bits per byte. Imports torch and transformers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from trainer.data.special_tokens import for_plain_text
from trainer.data.tokenizer import start_ids, start_of_text_id
from trainer.inference.generation import LoadedModel

MIN_TOKENS = 2  # of a text that is scored
MAX_TOKENS = 8_192  # of a text, from its beginning
MAX_CHARACTERS = 16 * MAX_TOKENS  # of a text that are tokenized for them
BATCH_TOKENS = 8_192  # that a forward pass reads, with padding
LOGITS = 2**24  # that exist at once


@dataclass(frozen=True)
class TextScore:
    """The loss of the tokens of a text, summed up, in nats; how many they are, and the UTF-8 bytes that they spell."""

    loss_sum: float
    num_tokens: int
    num_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Comparable between models with different tokenizers, which perplexity by token is not."""
        return self.loss_sum / math.log(2) / max(1, self.num_bytes)


@dataclass(frozen=True)
class _Window:
    """Tokens that the model reads at once, and those that come after the last of them and are scored."""

    text: int
    inputs: Tensor  # (tokens)
    targets: Tensor  # (scored tokens), at most as many


class TextScorer:
    """Scores texts with a decoder. What a text spells like a special token is ordinary text.

    The first token is predicted from the token that begins a text. A text that is longer than the context is read in
    windows that follow each other, the last of which begins earlier, so that it is as long: as lm-evaluation-harness
    reads texts.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._model, self._context = loaded.model, loaded.context
        self._start = (start_ids(loaded.tokenizer) or [start_of_text_id(loaded.tokenizer)])[-1]
        self._tokenizer = for_plain_text(loaded.tokenizer.backend_tokenizer)

    @torch.inference_mode()
    def score(self, texts: Sequence[str]) -> list[TextScore | None]:
        """The score of each text; None for one of fewer than MIN_TOKENS tokens. Only its first MAX_TOKENS count."""
        encoded = [self._encode(text) for text in texts]
        windows = [window for number, (ids, _size) in enumerate(encoded) for window in self._windows(number, ids)]
        loss_sums = [0.0] * len(texts)
        for batch in _batches(windows):
            for window, loss_sum in zip(batch, self._loss_sums(batch), strict=True):
                loss_sums[window.text] += loss_sum
        return [
            TextScore(loss_sum, len(ids), num_bytes) if len(ids) >= MIN_TOKENS else None
            for (ids, num_bytes), loss_sum in zip(encoded, loss_sums, strict=True)
        ]

    def _encode(self, text: str) -> tuple[list[int], int]:
        """The tokens of a text that count, and how many bytes of it they are."""
        text = text[:MAX_CHARACTERS]
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids = encoding.ids[:MAX_TOKENS]
        if len(encoding.ids) > MAX_TOKENS:
            text = text[: encoding.offsets[MAX_TOKENS - 1][1]]
        return ids, len(text.encode(errors="replace"))

    def _windows(self, text: int, ids: list[int]) -> Iterator[_Window]:
        sequence = torch.tensor([self._start, *ids])
        for start in range(0, len(ids), self._context):
            end = min(start + self._context, len(ids))
            yield _Window(text, sequence[max(0, end - self._context) : end], sequence[start + 1 : end + 1])

    def _loss_sums(self, batch: Sequence[_Window]) -> list[float]:
        """The summed loss of each window. Padding stands on the right, where a decoder does not look."""
        device = self._model.device
        rows = pad_sequence([window.inputs for window in batch], batch_first=True)  # (windows, tokens)
        output: Any = self._model.base_model(input_ids=rows.to(device), use_cache=False)
        lengths = [len(window.targets) for window in batch]
        scored: list[Tensor] = []
        for row, window in zip(output.last_hidden_state, batch, strict=True):
            num_inputs, num_targets = len(window.inputs), len(window.targets)
            scored.append(row[num_inputs - num_targets : num_inputs])
        hidden = torch.cat(scored)  # (all scored tokens, hidden_size)
        targets = torch.cat([window.targets for window in batch]).to(device)
        losses: Any = self._losses(hidden, targets).double().cpu()
        return [float(loss.sum()) for loss in losses.split(lengths)]

    def _losses(self, hidden: Any, targets: Any) -> Tensor:
        """hidden (tokens, hidden_size), targets (tokens); the loss of each token in fp32."""
        head: Any = self._model.get_output_embeddings()
        num_rows = max(1, LOGITS // self._model.config.vocab_size)
        pairs = zip(hidden.split(num_rows), targets.split(num_rows), strict=True)
        return torch.cat([F.cross_entropy(head(rows).float(), right, reduction="none") for rows, right in pairs])


def _batches(windows: Sequence[_Window]) -> Iterator[list[_Window]]:
    """Windows of similar lengths, the longest first; with padding each batch has at most BATCH_TOKENS."""
    batch: list[_Window] = []
    for window in sorted(windows, key=lambda window: -len(window.inputs)):
        if batch and (len(batch) + 1) * len(batch[0].inputs) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
