"""What a run learns from and is measured on: batches that depend on nothing but the spec and the sample's number."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from trainer.data import sample_order
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.data.tokenized_records import TokenizedRecords
from trainer.data.tokenized_text import Document, Ids, TokenizedText
from trainer.spec import TrainSpec

PackedIndices = Sequence[Ids] | Ids  # the records of each sample


class Dataset(ABC):
    """All samples of a run. Training draws them by number for ever, epoch after epoch; validation has each once."""

    num_train: int
    num_validation: int
    sha256: str  # of all that they are made from
    num_tokens: int
    bytes_per_token: float
    num_cut = 0  # records whose end is missing
    num_dropped = 0  # records that are left out
    labels: Sequence[str] = ()  # the classes, where samples have one
    max_eval_samples = 64  # validation samples of an evaluation, evenly spread and the same ones each time

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
        written = (batch["labels"] != IGNORE_INDEX).sum() if "decoder_input_ids" in batch else 0
        return int(read + written)


class TextDataset(Dataset):
    """Running text, cut into sequences."""

    def __init__(self, text: TokenizedText) -> None:
        self.text = text
        self.num_train, self.num_validation = text.num_train, text.num_validation
        self.sha256, self.num_tokens = text.meta.sha256, text.meta.num_tokens
        self.bytes_per_token = text.bytes_per_token

    def documents_of(self, n: int) -> list[Document]:
        return self.text.documents_of(n)


class RecordDataset(Dataset):
    """Records, one or several in each sample: those of `train` and of `validation`, by the sample's number."""

    def __init__(
        self, records: TokenizedRecords, train: PackedIndices, validation: PackedIndices, spec: TrainSpec
    ) -> None:
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
        return [int(sample) for sample in sample_order.shuffled_index(positions, self.num_train, self._seed)]

    def validation_batch(self, numbers: list[int]) -> Batch:
        return self._batch([self._validation[number] for number in numbers])

    def documents_of(self, n: int) -> list[Document]:
        return [self.records.document_of(int(record)) for record in self._train[self._drawn(n, 1)[0]]]

    @abstractmethod
    def _batch(self, boxes: list[Ids]) -> Batch:
        """The batch of samples that hold these records."""
