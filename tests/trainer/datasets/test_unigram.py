"""The loss of guessing each token by its frequency: that of the labels, each with its weight, in the first samples."""

import math
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, make_run, of_kind
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.datasets import prepare, unigram
from trainer.datasets.base import Dataset
from trainer.datasets.factory import open_dataset
from trainer.events import Journal
from trainer.report import Reporter


class FakeDataset:
    """As many samples as rows of labels."""

    def __init__(self, labels: list[list[int]], weights: list[list[float]] | None = None) -> None:
        self.labels, self.weights, self.num_train = np.asarray(labels), weights, len(labels)
        self.num_read = 0

    def train_batch(self, first: int, count: int) -> Batch:
        self.num_read += count
        batch = {"input_ids": self.labels, "labels": self.labels[first : first + count]}
        return batch if self.weights is None else {**batch, "weights": np.asarray(self.weights)[first : first + count]}

    def num_tokens_of(self, batch: Batch) -> int:
        return int(batch["labels"].size)


def loss(*arguments: list[list[int]] | list[list[float]]) -> float | None:
    return unigram.unigram_loss(FakeDataset(*arguments))  # type: ignore[arg-type]


def test_it_is_the_entropy_of_the_labels() -> None:
    assert loss([[0, 1], [2, 3]]) == pytest.approx(math.log(4))
    assert loss([[5, 5], [5, IGNORE_INDEX]]) == 0
    assert loss([[IGNORE_INDEX]]) is None
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert loss([[7, 9]], [[0.25, 0.75]]) == pytest.approx(quarter)
    assert loss([[7, 9, 8]], [[1.0, 3.0, 0.0]]) == pytest.approx(quarter)


def test_only_the_first_samples_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unigram, "MAX_TOKENS", 20)
    monkeypatch.setattr(unigram, "SAMPLES_AT_ONCE", 4)
    dataset = FakeDataset([[n % 3, 1] for n in range(1_000)])
    unigram.unigram_loss(dataset)  # type: ignore[arg-type]
    assert dataset.num_read == 12


def test_a_run_reports_that_of_its_training_text(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "run", [english(40_000)])
    done = prepare.prepare(run_dir, 1, Reporter(Journal(run_dir.events_path(1))))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(done.tokenizer)
    dataset: Dataset = open_dataset(Path(done.tokens), run_dir.spec(), tokenizer)
    counts = np.unique(dataset.train_batch(0, dataset.num_train)["labels"], return_counts=True)[1]
    (data,) = of_kind(run_dir, "data")
    assert data.unigram_loss == pytest.approx(-np.sum(counts / counts.sum() * np.log(counts / counts.sum())))
    assert 0 < data.unigram_loss < math.log(len(tokenizer))
