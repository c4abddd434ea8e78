"""The datasets of a run: batches that depend only on the spec and the numbers of their samples."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np

from trainer.batch_shapes import Document
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.data.repeated_documents import count_repeated_documents
from trainer.data.sample_order import SampleOrder, order_samples
from trainer.data.tokenized_records import TokenizedRecords
from trainer.data.tokenized_text import Ids, TokenizedText
from trainer.planning.counts import EVAL_SEQUENCES
from trainer.planning.mixture import CorpusShare, corpus_shares
from trainer.spec import TrainSpec

PackedIndices = Sequence[Ids] | Ids  # the record numbers in each sample


class Dataset(ABC):
    """All samples of a run. Training samples are numbered without end, epoch after epoch; validation samples once."""

    num_train: int
    num_validation: int
    order: SampleOrder
    corpus_tokens: list[int]  # of the training samples of each corpus
    sha256: str  # of the tokenized data
    num_tokens: int
    bytes_per_token: float
    num_cut = 0  # records truncated to the sequence length
    num_dropped = 0  # records left out
    num_equal = 0  # of these, pairs of equal answers
    num_refused = 0  # of these, records that the chat template refuses
    labels: Sequence[str] = ()  # class names, for classification
    max_eval_samples = EVAL_SEQUENCES  # validation samples per evaluation, evenly spaced, the same ones each time

    def shares(self, num_samples: int) -> list[CorpusShare]:
        """What the first `num_samples` training samples of the run show of each corpus."""
        epochs = self.order.num_epochs(num_samples)
        return corpus_shares(self.corpus_tokens, epochs * (len(self.corpus_tokens) // len(epochs)))

    @abstractmethod
    def documents_of(self, n: int) -> list[Document]:
        """The documents that training sample `n` of the run is made of."""

    def num_cut_tokens_of(self, n: int) -> list[int]:
        """How many tokens were cut off at the end of each text of training sample `n`; empty where nothing is cut."""
        return []

    @abstractmethod
    def count_trained_on(self, held_out: Sequence[Self]) -> list[int]:
        """Of each of these datasets with the same tokenizer: how many of its documents or records for validation have
        the tokens of one that this dataset trains on.
        """

    @abstractmethod
    def train_batch(self, first: int, count: int) -> Batch:
        """Training samples `first` to `first + count - 1` of the run, as arrays with `count` rows."""

    @abstractmethod
    def validation_batch(self, numbers: list[int]) -> Batch:
        """Validation samples by number, as arrays with one row for each."""

    def num_bytes(self, batch: Batch) -> int:
        """Bytes of text that a batch's labels stand for; 0 if the objective does not predict all of a text."""
        return 0

    def num_tokens_of(self, batch: Batch) -> int:
        """Tokens the model processes for a batch, without padding."""
        source = batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].size
        target = (batch["labels"] != IGNORE_INDEX).sum() if "decoder_input_ids" in batch else 0
        return int(source + target)


class TextDataset(Dataset):
    """Running text, cut into sequences."""

    def __init__(self, text: TokenizedText) -> None:
        self.text = text
        self.num_train, self.num_validation = text.num_train, text.num_validation
        self.sha256, self.num_tokens = text.meta.sha256, text.meta.num_tokens
        self.bytes_per_token = text.bytes_per_token
        self.order, self.corpus_tokens = text.order, [size * text.length for size in text.corpus_sizes]

    def documents_of(self, n: int) -> list[Document]:
        return self.text.documents_of(n)

    def count_trained_on(self, held_out: Sequence[Self]) -> list[int]:
        trained = self.text.train_documents
        return [count_repeated_documents(other.text.validation_documents, trained) for other in held_out]


class RecordDataset(Dataset):
    """Records, one or several in each sample. `train` and `validation` are the record numbers in each sample."""

    def __init__(
        self, records: TokenizedRecords, train: PackedIndices, validation: PackedIndices, spec: TrainSpec
    ) -> None:
        self.records, self._train, self._validation = records, train, validation
        self.num_train, self.num_validation = len(train), len(validation)
        meta = records.meta
        self.sha256, self.num_tokens = meta.sha256, meta.num_tokens
        self.bytes_per_token = meta.num_bytes / meta.num_tokens
        self.num_cut, self.num_dropped, self.labels = meta.num_cut, meta.num_dropped, meta.labels
        self.num_equal, self.num_refused = meta.num_equal, meta.num_refused
        firsts = np.asarray([int(train[sample][0]) for sample in range(self.num_train)], dtype=np.int64)
        self.order = order_samples(spec, records.count_by_corpus(firsts))
        self.corpus_tokens = records.tokens_by_corpus(records.train)

    def count_trained_on(self, held_out: Sequence[Self]) -> list[int]:
        trained = {self.records.fingerprint(int(record)) for record in self.records.train}
        return [
            sum(other.records.fingerprint(int(record)) in trained for record in other.records.validation)
            for other in held_out
        ]

    def train_batch(self, first: int, count: int) -> Batch:
        return self._batch([self._train[sample] for sample in self._samples(first, count)])

    def _samples(self, first: int, count: int) -> list[int]:
        return [int(sample) for sample in self.order.samples(np.arange(first, first + count, dtype=np.int64))]

    def validation_batch(self, numbers: list[int]) -> Batch:
        return self._batch([self._validation[number] for number in numbers])

    def documents_of(self, n: int) -> list[Document]:
        return [self.records.document_of(record) for record in self._records_of(n)]

    def num_cut_tokens_of(self, n: int) -> list[int]:
        return [count for record in self._records_of(n) for count in self.records.num_cut_tokens(record)]

    def _records_of(self, n: int) -> list[int]:
        return [int(record) for record in self._train[self._samples(n, 1)[0]]]

    @abstractmethod
    def _batch(self, groups: list[Ids]) -> Batch:
        """The batch whose samples consist of these records, one group of record numbers for each."""
