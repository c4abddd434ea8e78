"""Datasets of decoders: plain text, supervised fine-tuning records, preference pairs."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer.data.batch import IGNORE_INDEX, Array, Batch
from trainer.data.tokenized_records import TokenizedRecords
from trainer.data.tokenized_text import Ids, Rows, TokenizedText
from trainer.datasets.base import PackedIndices, RecordDataset, TextDataset
from trainer.planning.packing import pack_best_fit
from trainer.rounding import round_up_to_multiple
from trainer.spec import TrainSpec


class CausalLMDataset(TextDataset):
    """Plain text for next-token prediction. `input_ids` and `labels`: (samples, tokens), labels shifted by one."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(TokenizedText(directory, spec, tokenizer.backend_tokenizer))

    def train_batch(self, first: int, count: int) -> Batch:
        return self._batch(self.text.train_rows(first, count))

    def validation_batch(self, numbers: list[int]) -> Batch:
        return self._batch(self.text.validation_rows(numbers))

    def _batch(self, rows: Rows) -> Batch:
        return {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}

    def num_bytes(self, batch: Batch) -> int:
        return self.text.num_bytes(batch["labels"])


def one_per_sequence(records: Ids) -> Ids:
    """One record per sample: record numbers of shape (samples,) to shape (samples, 1)."""
    return records[:, None]


class SFTDataset(RecordDataset):
    """Records with weighted answers, packed into sequences if the spec says so. All arrays: (samples, tokens).

    `position_ids` start at 0 for each record, so that attention does not cross records. Those of the padding continue
    from the last record, so that a sequence with one record is recognized as such and needs no mask.
    """

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        records = TokenizedRecords(directory, spec)
        self._length, self._padding = spec.sequence_length, int(tokenizer.pad_token_id or 0)
        train, validation = (_pack(records, numbers, spec) for numbers in (records.train, records.validation))
        super().__init__(records, train, validation, spec)

    def num_tokens_of(self, batch: Batch) -> int:
        return int((batch["labels"] != IGNORE_INDEX).sum())

    def _batch(self, groups: list[Ids]) -> Batch:
        batch = self._empty_batch(len(groups))
        for row, group in enumerate(groups):
            start = 0
            for record in group:
                ((ids, weights),) = self.records.segments(int(record))
                start = _write_record(batch, row, start, ids, weights)
        return _trim_padding(batch)

    def _empty_batch(self, count: int) -> Batch:
        shape = (count, self._length)
        return {
            "input_ids": np.full(shape, self._padding, dtype=np.int64),
            "labels": np.full(shape, IGNORE_INDEX, dtype=np.int64),
            "weights": np.zeros(shape, dtype=np.float32),
            "position_ids": np.zeros(shape, dtype=np.int64),
        }


class PreferenceDataset(SFTDataset):
    """Pairs of answers to one prompt, the chosen one first. Never packed.

    `input_ids`, `labels` and `answered` (whether a label belongs to the answer): (samples, 2, tokens). `weights`:
    (samples,), all 1.
    """

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(directory, spec.model_copy(update={"packing": False}), tokenizer)

    def _batch(self, groups: list[Ids]) -> Batch:
        flat = self._empty_batch(2 * len(groups))
        segments = [segment for (record,) in groups for segment in self.records.segments(int(record))]
        for row, (ids, weights) in enumerate(segments):
            _write_record(flat, row, 0, ids, weights)
        pairs = {name: values.reshape(len(groups), 2, -1) for name, values in _trim_padding(flat).items()}
        return {
            "input_ids": pairs["input_ids"],
            "labels": pairs["labels"],
            "answered": pairs["weights"] > 0,
            "weights": np.ones(len(groups), dtype=np.float32),
        }


def _pack(records: TokenizedRecords, numbers: Ids, spec: TrainSpec) -> PackedIndices:
    """The record numbers in each sequence; of corpora with shares, a sequence has records of one only."""
    if not spec.packing:
        return one_per_sequence(numbers)
    packed = []
    for part in records.split_by_corpus(numbers) if spec.is_mixture else [numbers]:
        lengths = records.lengths(part) - 1  # the last token is only a label
        packed += [part[group] for group in pack_best_fit(lengths.tolist(), spec.sequence_length)]
    return packed


def _write_record(batch: Batch, row: int, start: int, ids: Array, weights: Array) -> int:
    """Write a record into a row with labels shifted by one. Returns the position after it."""
    end = start + len(ids) - 1
    batch["input_ids"][row, start:end] = ids[:-1]
    batch["labels"][row, start:end] = ids[1:]
    batch["weights"][row, start:end] = weights[1:]
    batch["position_ids"][row, start:] = np.arange(batch["position_ids"].shape[1] - start)
    return end


def _trim_padding(batch: Batch) -> Batch:
    """Drop the columns that are padding in all rows, down to a multiple of eight."""
    used = int((batch["labels"] != IGNORE_INDEX).any(axis=0).nonzero()[0][-1]) + 1
    return {name: values[:, : round_up_to_multiple(used, 8)] for name, values in batch.items()}
