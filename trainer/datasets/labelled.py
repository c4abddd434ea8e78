"""Datasets of records that are never packed: texts with a class label, and sources with a target."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.data.tokenized_records import TokenizedRecords
from trainer.data.tokenized_text import Ids
from trainer.data.tokenizer import token_bytes
from trainer.datasets.base import RecordDataset
from trainer.datasets.causal import one_per_sequence
from trainer.datasets.denoising import pad_sequences, seq2seq_batch
from trainer.spec import TrainSpec


class SingleRecordDataset(RecordDataset):
    """One record per sample."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast) -> None:
        records = TokenizedRecords(directory, spec)
        self._padding = int(tokenizer.pad_token_id)
        self._token_bytes = token_bytes(tokenizer.backend_tokenizer)
        super().__init__(records, one_per_sequence(records.train), one_per_sequence(records.validation), spec)


class ClassificationDataset(SingleRecordDataset):
    """Texts with class labels. `input_ids` and `attention_mask`: (samples, tokens). `labels`: (samples,)."""

    max_eval_samples = 2_000  # each is only one prediction

    def _batch(self, groups: list[Ids]) -> Batch:
        records = np.concatenate(groups)
        texts = [self.records.segments(int(record))[0][0] for record in records]
        inputs = pad_sequences(texts, self._padding)
        lengths = np.asarray([len(ids) for ids in texts])
        mask = (np.arange(inputs.shape[1]) < lengths[:, None]).astype(np.int64)
        return {"input_ids": inputs, "labels": self.records.labels[records], "attention_mask": mask}


class Seq2SeqDataset(SingleRecordDataset):
    """Sources with targets, as batches of `seq2seq_batch`."""

    def _batch(self, groups: list[Ids]) -> Batch:
        pairs = [self.records.segments(int(record)) for (record,) in groups]
        return seq2seq_batch([source[0] for source, _ in pairs], [target[0] for _, target in pairs], self._padding)

    def num_bytes(self, batch: Batch) -> int:
        labels = batch["labels"]
        return int(self._token_bytes[labels[labels != IGNORE_INDEX]].sum())
