"""What a run learns from and is measured on: batches that depend on nothing but the spec and the sample's number."""

from abc import ABC, abstractmethod
from pathlib import Path

from tokenizers import Tokenizer

from trainer.batch import Batch
from trainer.data import Dataset
from trainer.spec import TrainSpec


class Samples(ABC):
    """All samples of a run. Training draws them by number for ever, epoch after epoch; validation has each once."""

    num_train: int
    num_validation: int
    sha256: str  # of all that they are made from
    num_tokens: int
    bytes_per_token: float

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
        return int(batch["attention_mask"].sum()) if "attention_mask" in batch else int(batch["input_ids"].size)


class NextTokens(Samples):
    """Running text, cut into sequences: each token is the label of the one before it."""

    def __init__(self, directory: Path, spec: TrainSpec, tokenizer: Tokenizer) -> None:
        self.text = Dataset(directory, spec, tokenizer)
        self.num_train, self.num_validation = self.text.num_train, self.text.num_validation
        self.sha256, self.num_tokens = self.text.meta.sha256, self.text.meta.num_tokens
        self.bytes_per_token = self.text.bytes_per_token

    def train_batch(self, first: int, count: int) -> Batch:
        rows = self.text.train_rows(first, count)
        return {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}

    def validation_batch(self, numbers: list[int]) -> Batch:
        rows = self.text.validation_rows(numbers)
        return {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}

    def num_bytes(self, batch: Batch) -> int:
        return self.text.num_bytes(batch["labels"])


def open_samples(directory: Path, spec: TrainSpec, tokenizer: Tokenizer) -> Samples:
    """The samples of a run whose tokenised data lies in a directory. Raises Failure where there are too few."""
    return NextTokens(directory, spec, tokenizer)
