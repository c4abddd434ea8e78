"""Samples of records that are read whole: texts with a label, and sources with a target."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer import order
from trainer.batch import IGNORED, Batch
from trainer.data import Document, Ids
from trainer.gaps import padded, translated
from trainer.records import Records
from trainer.samples import Samples
from trainer.spec import TrainSpec
from trainer.tokenizer import token_bytes


class Examples(Samples):
    """One record a sample."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        self.records = Records(directory, spec)
        self._seed, self._padding = spec.seed, int(tokenizer.pad_token_id)
        self._token_bytes = token_bytes(tokenizer.backend_tokenizer)
        self.num_train, self.num_validation = len(self.records.train), len(self.records.validation)
        meta = self.records.meta
        self.sha256, self.num_tokens = meta.sha256, meta.num_tokens
        self.bytes_per_token = meta.num_bytes / meta.num_tokens
        self.num_cut, self.num_dropped, self.labels = meta.num_cut, meta.num_dropped, meta.labels

    def train_batch(self, first: int, count: int) -> Batch:
        return self._batch(self.records.train[self._drawn(first, count)])

    def _drawn(self, first: int, count: int) -> Ids:
        return order.draw(np.arange(first, first + count, dtype=np.int64), self.num_train, self._seed)

    def validation_batch(self, numbers: list[int]) -> Batch:
        return self._batch(self.records.validation[np.asarray(numbers, dtype=np.int64)])

    def documents_of(self, n: int) -> list[Document]:
        return [self.records.document_of(int(self.records.train[self._drawn(n, 1)[0]]))]

    @abstractmethod
    def _batch(self, records: Ids) -> Batch:
        """The batch of these records."""


class Labelled(Examples):
    """Texts, each with the number of its label."""

    most_measured = 2_000  # a text is one prediction only

    def _batch(self, records: Ids) -> Batch:
        texts = [self.records.segments(int(record))[0][0] for record in records]
        read = padded(texts, self._padding)
        lengths = np.asarray([len(ids) for ids in texts])
        mask = (np.arange(read.shape[1]) < lengths[:, None]).astype(np.int64)
        return {"input_ids": read, "labels": self.records.labels[records], "attention_mask": mask}


class Pairs(Examples):
    """Sources with the target that is to be written."""

    def _batch(self, records: Ids) -> Batch:
        pairs = [self.records.segments(int(record)) for record in records]
        return translated([source[0] for source, _ in pairs], [target[0] for _, target in pairs], self._padding)

    def num_bytes(self, batch: Batch) -> int:
        labels = batch["labels"]
        return int(self._token_bytes[labels[labels != IGNORED]].sum())
