"""Samples of running text with something hidden: single words for encoders, spans for encoder-decoders."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.data.tokenized_text import Ids, Rows, TokenizedText
from trainer.data.tokenizer import document_separator_id
from trainer.datasets import masking
from trainer.datasets.base import TextDataset
from trainer.planning.counts import span_lengths
from trainer.spec import TrainSpec


class DenoisingDataset(TextDataset):
    """Text cut into sequences, in each of which something is hidden, the same whenever the sample is drawn."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast, length: int) -> None:
        super().__init__(TokenizedText(directory, spec, tokenizer.backend_tokenizer, length, overlap=0))
        self._spec = spec

    def train_batch(self, first: int, count: int) -> Batch:
        return self._hide(self.text.train_rows(first, count), list(range(first, first + count)))

    def validation_batch(self, numbers: list[int]) -> Batch:
        return self._hide(
            self.text.validation_rows(numbers), [masking.VALIDATION_STREAM + number for number in numbers]
        )

    @abstractmethod
    def _hide(self, rows: Rows, numbers: list[int]) -> Batch:
        """The batch of these texts, what is hidden of each drawn by its number."""


class MaskedLMDataset(DenoisingDataset):
    """Words to find, in text between the tokens that begin and end one."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(directory, spec, tokenizer, spec.sequence_length - 2)
        self._start, self._end = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self._mask = int(tokenizer.mask_token_id)
        special = set(tokenizer.all_special_ids)
        self._words: Ids = np.asarray([n for n in range(len(tokenizer)) if n not in special], dtype=np.int64)

    def _hide(self, rows: Rows, numbers: list[int]) -> Batch:
        shape = (len(rows), rows.shape[1] + 2)
        inputs, labels = np.full(shape, self._start, dtype=np.int64), np.full(shape, IGNORE_INDEX, dtype=np.int64)
        inputs[:, -1] = self._end
        for row, (ids, number) in enumerate(zip(rows, numbers, strict=True)):
            chance = masking.sample_rng(self._spec.seed, number)
            hidden = masking.mask_tokens(ids, self._spec.mlm_probability, self._mask, self._words, chance)
            inputs[row, 1:-1], labels[row, 1:-1] = hidden
        return {"input_ids": inputs, "labels": labels}


class SpanCorruptionDataset(DenoisingDataset):
    """Spans to write, given the text without them."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        raw, _target = span_lengths(spec.sequence_length, spec.noise_density, spec.mean_noise_span_length)
        super().__init__(directory, spec, tokenizer, raw)
        self._sentinels = sentinel_ids(tokenizer)
        self._end, self._padding = document_separator_id(tokenizer), int(tokenizer.pad_token_id)

    def _hide(self, rows: Rows, numbers: list[int]) -> Batch:
        spec, pairs = self._spec, []
        for ids, number in zip(rows, numbers, strict=True):
            chance = masking.sample_rng(spec.seed, number)
            given = (spec.noise_density, spec.mean_noise_span_length, self._sentinels, self._end, chance)
            pairs.append(masking.corrupt_spans(ids, *given))
        return seq2seq_batch([source for source, _ in pairs], [target for _, target in pairs], self._padding)


def sentinel_ids(tokenizer: PreTrainedTokenizerFast) -> Ids:
    """The tokens that stand for gaps, in T5's order."""
    vocabulary = tokenizer.get_vocab()
    names = (f"<extra_id_{number}>" for number in range(len(vocabulary)))
    found = []
    for name in names:
        if name not in vocabulary:
            break
        found.append(vocabulary[name])
    return np.asarray(found, dtype=np.int64)


def seq2seq_batch(sources: list[Ids], targets: list[Ids], padding: int) -> Batch:
    """A batch of sources and what a decoder writes for them, which begins with the padding and sees its own past."""
    read, written = pad_sequences(sources, padding), pad_sequences(targets, IGNORE_INDEX)
    before = np.concatenate([np.full((len(targets), 1), padding, dtype=np.int64), written[:, :-1]], axis=1)
    batch = {
        "input_ids": read,
        "labels": written,
        "decoder_input_ids": np.where(before == IGNORE_INDEX, padding, before),
    }
    lengths = np.asarray([len(ids) for ids in sources])
    if (lengths < read.shape[1]).any():
        batch["attention_mask"] = (np.arange(read.shape[1]) < lengths[:, None]).astype(np.int64)
    return batch


def pad_sequences(rows: list[Ids], filler: int) -> Rows:
    """Rows of different lengths as one array, as wide as the longest; wider ones come in steps of eight."""
    width = max(len(ids) for ids in rows)
    if any(len(ids) != width for ids in rows):
        width = -(-width // 8) * 8
    made = np.full((len(rows), width), filler, dtype=np.int64)
    for row, ids in enumerate(rows):
        made[row, : len(ids)] = ids
    return made
