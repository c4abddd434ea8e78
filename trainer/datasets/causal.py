"""Datasets of decoders: plain text, supervised fine-tuning records, preference pairs."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer.data.batch import IGNORE_INDEX, Array, Batch
from trainer.data.tokenized_records import TokenizedRecords, pack_best_fit
from trainer.data.tokenized_text import Ids, Rows, TokenizedText
from trainer.datasets.base import PackedIndices, RecordDataset, TextDataset
from trainer.spec import TrainSpec


class CausalLMDataset(TextDataset):
    """Each token is the label of the one before it."""

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
    """One record a sample: shape [samples, 1]."""
    return records[:, None]


class SFTDataset(RecordDataset):
    """Records whose answers are learnt, several in a sequence where the spec packs them.

    `position_ids` start again with each record, so that none sees another. The padding behind the last one goes on from
    it, so that a sequence of one record is seen to be one, and spared the mask.
    """

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        records = TokenizedRecords(directory, spec)
        self._length, self._padding = spec.sequence_length, int(tokenizer.pad_token_id or 0)
        train, validation = (_boxes(records, some, spec) for some in (records.train, records.validation))
        super().__init__(records, train, validation, spec)

    def num_tokens_of(self, batch: Batch) -> int:
        return int((batch["labels"] != IGNORE_INDEX).sum())

    def _batch(self, boxes: list[Ids]) -> Batch:
        batch = self._blank(len(boxes))
        for row, box in enumerate(boxes):
            at = 0
            for record in box:
                ((ids, weights),) = self.records.segments(int(record))
                at = _put(batch, row, at, ids, weights)
        return _narrowed(batch)

    def _blank(self, count: int) -> Batch:
        shape = (count, self._length)
        return {
            "input_ids": np.full(shape, self._padding, dtype=np.int64),
            "labels": np.full(shape, IGNORE_INDEX, dtype=np.int64),
            "weights": np.zeros(shape, dtype=np.float32),
            "position_ids": np.zeros(shape, dtype=np.int64),
        }


class PreferenceDataset(SFTDataset):
    """Pairs of answers to one prompt, (samples, 2, tokens): the chosen one, then the rejected one. Never packed.

    `answered` says which labels belong to the answer; a pair counts 1 in `weights`.
    """

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(directory, spec.model_copy(update={"packing": False}), tokenizer)

    def _batch(self, boxes: list[Ids]) -> Batch:
        flat = self._blank(2 * len(boxes))
        segments = [segment for (record,) in boxes for segment in self.records.segments(int(record))]
        for row, (ids, weights) in enumerate(segments):
            _put(flat, row, 0, ids, weights)
        pairs = {name: values.reshape(len(boxes), 2, -1) for name, values in _narrowed(flat).items()}
        return {
            "input_ids": pairs["input_ids"],
            "labels": pairs["labels"],
            "answered": pairs["weights"] > 0,
            "weights": np.ones(len(boxes), dtype=np.float32),
        }


def _boxes(records: TokenizedRecords, some: Ids, spec: TrainSpec) -> PackedIndices:
    """The records of each sequence."""
    if not spec.packing:
        return one_per_sequence(some)
    lengths = records.lengths(some) - 1  # the last token is only a label
    return [some[box] for box in pack_best_fit(lengths.tolist(), spec.sequence_length)]


def _put(batch: Batch, row: int, at: int, ids: Array, weights: Array) -> int:
    """Write one record into a row, each token the label of the one before it, and return where the next one begins."""
    end = at + len(ids) - 1
    batch["input_ids"][row, at:end] = ids[:-1]
    batch["labels"][row, at:end] = ids[1:]
    batch["weights"][row, at:end] = weights[1:]
    batch["position_ids"][row, at:] = np.arange(batch["position_ids"].shape[1] - at)
    return end


def _narrowed(batch: Batch) -> Batch:
    """Without the columns that are padding in all rows, to the next multiple of eight."""
    used = int((batch["labels"] != IGNORE_INDEX).any(axis=0).nonzero()[0][-1]) + 1
    return {name: values[:, : -(-used // 8) * 8] for name, values in batch.items()}
