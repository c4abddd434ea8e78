"""Losses, compared with those of transformers' own models on the same batch, and the other metrics."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, make_run
from tests.trainer.tasks import sentences, spellings
from trainer.data import batch as batches
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.datasets import prepare
from trainer.datasets.base import Dataset
from trainer.datasets.factory import open_dataset
from trainer.modeling.build import build_model
from trainer.modeling.objectives import Objective, SequenceClassification, objective
from trainer.report import Reporter

Made = Callable[[str], tuple[Objective, Dataset]]
CPU = torch.device("cpu")
FIELDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "bert": {"objective": "masked", "model_type": "bert"},
    "roberta": {"objective": "masked", "model_type": "roberta"},
    "t5": {"objective": "span_corruption", "model_type": "t5"},
    "t5-pairs": {"objective": "seq2seq", "model_type": "t5", "kind": "seq2seq"},
    **{
        f"{family}-label": {"objective": "classification", "model_type": family, "kind": "classification"}
        for family in ("bert", "roberta", "gpt2", "llama", "qwen2")
    },
}
TEXTS = {"classification": sentences, "seq2seq": spellings}


@pytest.fixture(scope="module")
def made(home: Path) -> Made:
    """Each objective with its samples, made once."""
    return cache(lambda name: opened(home, name))


def opened(home: Path, name: str) -> tuple[Objective, Dataset]:
    """The objective and the samples of a prepared run."""
    fields = {"num_key_value_heads": 4, "vocab_size": None, "sequence_length": 48, **FIELDS[name]}
    documents = TEXTS.get(fields.get("kind", "text"), lambda: [english(20_000)])()
    run_dir = make_run(home, f"objective-{name}", documents, **fields)
    prepared = prepare.prepare(run_dir, 1, Reporter(None))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(prepared.tokenizer)
    samples = open_dataset(Path(prepared.tokens), run_dir.spec(), tokenizer)
    model = build_model(run_dir.spec(), None, tokenizer, samples.labels, CPU, "fp32", print)
    return objective(run_dir.spec(), model).eval(), samples


def tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def summed(of: Objective, batch: Batch) -> float:
    with torch.no_grad():
        return float(of(**tensors(batch))[0])


def theirs(of: Objective, batch: Batch) -> float:
    """The mean loss that transformers' model computes itself. Of decoders it shifts the labels on its own."""
    given = tensors(batch)
    if of.spec.objective == "causal":
        rows = torch.cat([given["input_ids"], given["labels"][:, -1:]], dim=1)
        given = {"input_ids": rows, "labels": rows}
        of.model.config.max_position_embeddings = rows.shape[1]
    given.pop("decoder_input_ids", None)
    with torch.no_grad():
        return float(of.model(**given).loss)


@pytest.mark.parametrize("name", FIELDS)
def test_the_loss_equals_that_of_transformers(made: Made, name: str) -> None:
    of, samples = made(name)
    batch = samples.train_batch(0, 6)

    ours = summed(of, batch) / batches.num_targets(batch)
    assert ours == pytest.approx(theirs(of, batch), rel=1e-5, abs=1e-5)
    assert [summed(of, samples.train_batch(n, 1)) for n in range(6)] == pytest.approx(
        [summed(of, batches.take_rows(batch, slice(n, n + 1))) for n in range(6)], rel=1e-4
    )
    assert sum(summed(of, batches.take_rows(batch, slice(n, n + 2))) for n in (0, 2, 4)) == pytest.approx(
        summed(of, batch), rel=1e-5
    )


def test_label_counts_give_accuracy_and_f1(made: Made) -> None:
    from sklearn import metrics

    of, samples = made("gpt2-label")
    batch = samples.validation_batch(list(range(samples.num_validation)))
    whole = batches.pad_batch(batch, samples.num_validation + 3)  # rows that count for nothing
    with torch.no_grad():
        sums = of(**tensors(whole)).tolist()
        given = of.model(**{name: tensors(batch)[name] for name in ("input_ids", "attention_mask")}).logits.argmax(-1)

    figures = of.metrics(sums[1:], batches.num_targets(whole))
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(batch["labels"], given))
    assert figures["f1"] == pytest.approx(metrics.f1_score(batch["labels"], given, average="macro"))


def test_a_class_without_labels_and_predictions_is_omitted_from_f1() -> None:
    of = SequenceClassification.__new__(SequenceClassification)
    torch.nn.Module.__init__(of)
    of._num_labels = 3

    assert of.metrics([2, 2, 0, 3, 1, 0, 2, 1, 0], 4) == {"accuracy": 0.75, "f1": pytest.approx((4 / 5 + 2 / 3) / 2)}


def test_texts_are_truncated_and_padded_to_a_multiple_of_eight(made: Made) -> None:
    _, samples = made("bert-label")
    batch = samples.train_batch(0, 8)
    width = batch["input_ids"].shape[1]
    lengths = batch["attention_mask"].sum(axis=1)

    assert width % 8 == 0
    assert width - 8 < lengths.max() <= width <= 48
    assert samples.num_tokens_of(batch) == lengths.sum()
    assert np.array_equal(batch["attention_mask"], np.arange(width) < lengths[:, None])


def test_the_tokens_of_source_and_target_are_counted(made: Made) -> None:
    _, samples = made("t5-pairs")
    batch = samples.train_batch(0, 4)

    read, written = (batch["input_ids"] != 1).sum(), (batch["labels"] != IGNORE_INDEX).sum()  # 1 is padding
    assert samples.num_tokens_of(batch) == read + written


def test_the_bytes_of_targets_equal_those_of_their_text(made: Made) -> None:
    _, samples = made("t5-pairs")
    held_out = [json.loads(text)["target"] for text in spellings()]
    documents = [samples.documents_of(n)[0].number for n in range(4)]

    assert samples.num_bytes(samples.train_batch(0, 4)) == sum(len(held_out[number].encode()) for number in documents)
