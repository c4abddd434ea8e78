"""Denoising datasets of plain text: masked language modeling for encoders, span corruption for encoder-decoders."""

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
from trainer.rounding import round_up_to_multiple
from trainer.spec import TrainSpec


class DenoisingDataset(TextDataset):
    """Text cut into sequences, with noise that depends only on the seed and the number of the sample."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast, length: int) -> None:
        super().__init__(TokenizedText(directory, spec, tokenizer.backend_tokenizer, length, overlap=0))
        self._spec = spec

    def train_batch(self, first: int, count: int) -> Batch:
        return self._add_noise(self.text.train_rows(first, count), list(range(first, first + count)))

    def validation_batch(self, numbers: list[int]) -> Batch:
        streams = [masking.VALIDATION_STREAM + number for number in numbers]
        return self._add_noise(self.text.validation_rows(numbers), streams)

    @abstractmethod
    def _add_noise(self, rows: Rows, numbers: list[int]) -> Batch:
        """The batch for texts of shape (samples, tokens), with the noise of each drawn from its number."""


class MaskedLMDataset(DenoisingDataset):
    """Masked language modeling, as in BERT. `input_ids` and `labels`: (samples, tokens), between cls and sep tokens."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(directory, spec, tokenizer, spec.sequence_length - 2)
        self._start, self._end = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self._mask = int(tokenizer.mask_token_id)
        special = set(tokenizer.all_special_ids)
        self._ordinary: Ids = np.asarray([n for n in range(len(tokenizer)) if n not in special], dtype=np.int64)

    def _add_noise(self, rows: Rows, numbers: list[int]) -> Batch:
        shape = (len(rows), rows.shape[1] + 2)
        inputs, labels = np.full(shape, self._start, dtype=np.int64), np.full(shape, IGNORE_INDEX, dtype=np.int64)
        inputs[:, -1] = self._end
        for row, (ids, number) in enumerate(zip(rows, numbers, strict=True)):
            rng = masking.sample_rng(self._spec.seed, number)
            masked = masking.mask_tokens(ids, self._spec.mlm_probability, self._mask, self._ordinary, rng)
            inputs[row, 1:-1], labels[row, 1:-1] = masked
        return {"input_ids": inputs, "labels": labels}


class SpanCorruptionDataset(DenoisingDataset):
    """Span corruption, as in T5: the source is a text without random spans, the target is those spans."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        length, _target = span_lengths(spec.sequence_length, spec.noise_density, spec.mean_noise_span_length)
        super().__init__(directory, spec, tokenizer, length)
        self._sentinels = sentinel_ids(tokenizer)
        self._end, self._padding = document_separator_id(tokenizer), int(tokenizer.pad_token_id)

    def _add_noise(self, rows: Rows, numbers: list[int]) -> Batch:
        spec, pairs = self._spec, []
        for ids, number in zip(rows, numbers, strict=True):
            rng = masking.sample_rng(spec.seed, number)
            noise = (spec.noise_density, spec.mean_noise_span_length)
            pairs.append(masking.corrupt_spans(ids, *noise, self._sentinels, self._end, rng))
        return seq2seq_batch([source for source, _ in pairs], [target for _, target in pairs], self._padding)


def sentinel_ids(tokenizer: PreTrainedTokenizerFast) -> Ids:
    """The ids of the sentinel tokens <extra_id_0>, <extra_id_1> and so on, of shape (sentinels,)."""
    vocabulary = tokenizer.get_vocab()
    ids = []
    for number in range(len(vocabulary)):
        name = f"<extra_id_{number}>"
        if name not in vocabulary:
            break
        ids.append(vocabulary[name])
    return np.asarray(ids, dtype=np.int64)


def seq2seq_batch(sources: list[Ids], targets: list[Ids], padding: int) -> Batch:
    """An encoder-decoder batch: `input_ids` (samples, source), `labels` and `decoder_input_ids` (samples, target).

    The decoder's inputs are the labels shifted right by one, starting with the padding token. `attention_mask` is there
    only if sources are padded.
    """
    inputs, labels = pad_sequences(sources, padding), pad_sequences(targets, IGNORE_INDEX)
    shifted = np.concatenate([np.full((len(targets), 1), padding, dtype=np.int64), labels[:, :-1]], axis=1)
    batch = {
        "input_ids": inputs,
        "labels": labels,
        "decoder_input_ids": np.where(shifted == IGNORE_INDEX, padding, shifted),
    }
    lengths = np.asarray([len(ids) for ids in sources])
    if (lengths < inputs.shape[1]).any():
        batch["attention_mask"] = (np.arange(inputs.shape[1]) < lengths[:, None]).astype(np.int64)
    return batch


def pad_sequences(rows: list[Ids], filler: int) -> Rows:
    """Pad rows on the right to one array of shape (rows, width).

    The width is that of the longest row, rounded up to a multiple of eight unless all rows are equally long.
    """
    width = max(len(ids) for ids in rows)
    if any(len(ids) != width for ids in rows):
        width = round_up_to_multiple(width, 8)
    padded = np.full((len(rows), width), filler, dtype=np.int64)
    for row, ids in enumerate(rows):
        padded[row, : len(ids)] = ids
    return padded
