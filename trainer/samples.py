"""What a run learns from and is measured on: batches that depend on nothing but the spec and the sample's number."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer import order
from trainer.batch import IGNORED, Array, Batch
from trainer.data import Dataset, Document, Ids, Rows
from trainer.records import Records, pack
from trainer.spec import TrainSpec

Boxes = Sequence[Ids] | Ids  # the records of each sample


class Samples(ABC):
    """All samples of a run. Training draws them by number for ever, epoch after epoch; validation has each once."""

    num_train: int
    num_validation: int
    sha256: str  # of all that they are made from
    num_tokens: int
    bytes_per_token: float
    num_cut = 0  # records whose end is missing
    num_dropped = 0  # records that are left out
    labels: Sequence[str] = ()  # the classes, where samples have one
    most_measured = 64  # validation samples of an evaluation, evenly spread and the same ones each time

    @abstractmethod
    def documents_of(self, n: int) -> list[Document]:
        """The documents that training sample `n` of the run takes text from."""

    @abstractmethod
    def train_batch(self, first: int, count: int) -> Batch:
        """The training samples `first` to `first + count - 1` of the run."""

    @abstractmethod
    def validation_batch(self, numbers: list[int]) -> Batch:
        """Validation samples by their number."""

    def num_bytes(self, batch: Batch) -> int:
        """How many bytes of text the targets of a batch stand for; 0 where the objective predicts no text whole."""
        return 0

    def num_tokens_of(self, batch: Batch) -> int:
        """How many tokens the model reads in a batch, padding not counted."""
        read = batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].size
        written = (batch["labels"] != IGNORED).sum() if "decoder_input_ids" in batch else 0
        return int(read + written)


class OfText(Samples):
    """Running text, cut into sequences."""

    def __init__(self, text: Dataset) -> None:
        self.text = text
        self.num_train, self.num_validation = text.num_train, text.num_validation
        self.sha256, self.num_tokens = text.meta.sha256, text.meta.num_tokens
        self.bytes_per_token = text.bytes_per_token

    def documents_of(self, n: int) -> list[Document]:
        return self.text.documents_of(n)


class NextTokens(OfText):
    """Each token is the label of the one before it."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(Dataset(directory, spec, tokenizer.backend_tokenizer))

    def train_batch(self, first: int, count: int) -> Batch:
        return self._batch(self.text.train_rows(first, count))

    def validation_batch(self, numbers: list[int]) -> Batch:
        return self._batch(self.text.validation_rows(numbers))

    def _batch(self, rows: Rows) -> Batch:
        return {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}

    def num_bytes(self, batch: Batch) -> int:
        return self.text.num_bytes(batch["labels"])


class OfRecords(Samples):
    """Records, one or several in each sample: those of `train` and of `validation`, by the sample's number."""

    def __init__(self, records: Records, train: Boxes, validation: Boxes, spec: TrainSpec) -> None:
        self.records, self._train, self._validation, self._seed = records, train, validation, spec.seed
        self.num_train, self.num_validation = len(train), len(validation)
        meta = records.meta
        self.sha256, self.num_tokens = meta.sha256, meta.num_tokens
        self.bytes_per_token = meta.num_bytes / meta.num_tokens
        self.num_cut, self.num_dropped, self.labels = meta.num_cut, meta.num_dropped, meta.labels

    def train_batch(self, first: int, count: int) -> Batch:
        return self._batch([self._train[sample] for sample in self._drawn(first, count)])

    def _drawn(self, first: int, count: int) -> list[int]:
        positions = np.arange(first, first + count, dtype=np.int64)
        return [int(sample) for sample in order.draw(positions, self.num_train, self._seed)]

    def validation_batch(self, numbers: list[int]) -> Batch:
        return self._batch([self._validation[number] for number in numbers])

    def documents_of(self, n: int) -> list[Document]:
        return [self.records.document_of(int(record)) for record in self._train[self._drawn(n, 1)[0]]]

    @abstractmethod
    def _batch(self, boxes: list[Ids]) -> Batch:
        """The batch of samples that hold these records."""


def alone(records: Ids) -> Ids:
    """One record a sample: shape [samples, 1]."""
    return records[:, None]


class Answers(OfRecords):
    """Records whose answers are learnt, several in a sequence where the spec packs them.

    `position_ids` start again with each record, so that none sees another. The padding behind the last one goes on from
    it, so that a sequence of one record is seen to be one, and spared the mask.
    """

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        records = Records(directory, spec)
        self._length, self._padding = spec.sequence_length, int(tokenizer.pad_token_id or 0)
        train, validation = (_boxes(records, some, spec) for some in (records.train, records.validation))
        super().__init__(records, train, validation, spec)

    def num_tokens_of(self, batch: Batch) -> int:
        return int((batch["labels"] != IGNORED).sum())

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
            "labels": np.full(shape, IGNORED, dtype=np.int64),
            "weights": np.zeros(shape, dtype=np.float32),
            "position_ids": np.zeros(shape, dtype=np.int64),
        }


class Preferences(Answers):
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


def _boxes(records: Records, some: Ids, spec: TrainSpec) -> Boxes:
    """The records of each sequence."""
    if not spec.packing:
        return alone(some)
    lengths = records.lengths(some) - 1  # the last token is only a label
    return [some[box] for box in pack(lengths.tolist(), spec.sequence_length)]


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
    used = int((batch["labels"] != IGNORED).any(axis=0).nonzero()[0][-1]) + 1
    return {name: values[:, : -(-used // 8) * 8] for name, values in batch.items()}
