"""Each objective learns: below a baseline that is computed here, from what a model without context could know."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from tests.trainer.bases import start_from
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import checkpoint_of, english, make_run, of_kind, series, write_corpus
from tests.trainer.tasks import NUMBERS, countings, echoes, sentences, spellings
from trainer.data.batch import IGNORE_INDEX, Array
from trainer.datasets import prepare
from trainer.datasets.base import Dataset
from trainer.datasets.factory import open_dataset
from trainer.run_dir import RunDir, verify

SHAPE = {"num_key_value_heads": 4, "vocab_size": None, "learning_rate": 0.005, "max_steps": 100, "eval_steps": 50}


def samples_of(run_dir: RunDir) -> Dataset:
    prepared = prepare.read(run_dir, 1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(prepared.tokenizer)
    return open_dataset(Path(prepared.tokens), run_dir.spec(), tokenizer)


def targets(labels: Array) -> list[int]:
    return [int(label) for label in labels.flatten() if label != IGNORE_INDEX]


def unigram_loss(run_dir: RunDir) -> float:
    """The validation loss of always giving each label its share of all training samples."""
    samples = samples_of(run_dir)
    counts = Counter(targets(samples.train_batch(0, samples.num_train)["labels"]))
    total = counts.total() + of_kind(run_dir, "tokenizer")[0].vocab_size  # one more of each: none is impossible
    held_out = targets(samples.validation_batch(list(range(samples.num_validation)))["labels"])
    return -sum(math.log((counts[label] + 1) / total) for label in held_out) / len(held_out)


def run(fork_server: GangForkServer, home: Path, name: str, documents: list[str], **fields: Any) -> RunDir:
    run_dir = make_run(home, f"learns-{name}", documents, **{**SHAPE, **fields})
    assert fork_server.run(run_dir, run_dir.spec().num_processes) == 0, run_dir.log_path.read_text()
    return run_dir


MASKED = {"objective": "masked", "model_type": "bert", "mlm_probability": 0.3}
SPANS = {"objective": "span_corruption", "model_type": "t5"}


@pytest.fixture(scope="module")
def masked(fork_server: GangForkServer, home: Path) -> RunDir:
    apart = write_corpus(home / "apart", [" ".join(["ten"] * 40)] * 30).model_copy(update={"id": "apart"})
    return run(fork_server, home, "masked", echoes(), held_out=[apart], **MASKED)


@pytest.fixture(scope="module")
def spans(fork_server: GangForkServer, home: Path) -> RunDir:
    return run(fork_server, home, "spans", countings(), **SPANS)


def test_masked_words_are_predicted_from_their_neighbors(masked: RunDir) -> None:
    losses = series(masked, "eval_loss")

    assert losses[0] > unigram_loss(masked) > losses[100] + 0.5
    assert series(masked, "eval_accuracy")[100] > 0.5
    model = AutoModelForMaskedLM.from_pretrained(checkpoint_of(masked, 100))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_of(masked, 100))
    asked = tokenizer("seven seven seven seven<|mask|> seven seven seven seven seven", return_tensors="pt")
    place = int((asked["input_ids"][0] == tokenizer.mask_token_id).nonzero())
    assert tokenizer.decode(model(**asked).logits[0, place].argmax()) == " seven"


def test_masked_words_are_filled_in_the_samples(masked: RunDir) -> None:
    last = of_kind(masked, "sample")[-1]

    assert "<|mask|>" in last.prompt
    assert "<|mask|>" not in last.text


def test_a_validation_corpus_has_its_own_curves(masked: RunDir) -> None:
    own, other = series(masked, "eval_loss"), series(masked, "eval_loss/apart")

    assert list(other) == list(own) == [0, 50, 100]
    assert other[100] > own[100] + 1  # "ten" was never trained on
    assert 0 <= series(masked, "eval_accuracy/apart")[100] < series(masked, "eval_accuracy")[100]
    assert of_kind(masked, "checkpoint")[-1].metrics["eval_loss/apart"] == other[100]


def test_a_resumed_masked_run_ends_with_the_same_bits(fork_server: GangForkServer, home: Path, masked: RunDir) -> None:
    fields = {"objective": "masked", "model_type": "bert", "max_steps": 12, "save_steps": 6, "eval_steps": 6}
    whole = run(fork_server, home, "masked-whole", echoes(), **fields)
    again = make_run(home, "learns-masked-again", echoes(), **{**SHAPE, **fields})
    inputs = again.inputs(1).model_copy(update={"resume": str(checkpoint_of(whole, 6))})
    again.create(again.spec(), inputs, fence=1)

    assert fork_server.run(again) == 0, again.log_path.read_text()

    rest = {step: loss for step, loss in series(whole, "loss").items() if step > 6}
    assert series(again, "loss") == rest
    assert weights(again) == weights(whole)
    assert not of_kind(again, "check")


def weights(run_dir: RunDir) -> str:
    entries = verify(checkpoint_of(run_dir, 12))["files"]
    return str(next(entry["sha256"] for entry in entries if entry["name"] == "model.safetensors"))


@pytest.mark.parametrize(("name", "fields"), [("masked", MASKED), ("spans", SPANS)])
def test_a_run_starts_from_the_weights_of_another(
    request: pytest.FixtureRequest, fork_server: GangForkServer, home: Path, name: str, fields: dict[str, Any]
) -> None:
    before: RunDir = request.getfixturevalue(name)
    documents = {"masked": echoes, "spans": countings}[name]()
    onward = make_run(home, f"onward-{name}", documents, **{**SHAPE, **fields, "base_model": "base", "max_steps": 5})
    start_from(onward, checkpoint_of(before, 100))

    assert fork_server.run(onward) == 0, onward.log_path.read_text()

    assert series(onward, "eval_loss")[0] == pytest.approx(series(before, "eval_loss")[100], rel=1e-5)
    assert [event.check for event in of_kind(onward, "check")] == ["trained_share", "whole_loss"]


def test_masked_spans_are_predicted_from_the_text_before_them(spans: RunDir) -> None:
    losses = series(spans, "eval_loss")

    assert losses[0] > unigram_loss(spans) > losses[100] + 0.2
    last = of_kind(spans, "sample")[-1]
    assert "<extra_id_0>" in last.prompt
    assert "<extra_id_0>" in last.text


PAIRS = {"kind": "seq2seq", "objective": "seq2seq", "model_type": "t5", "train_batch_size": 16, "warmup_steps": 4}


@pytest.fixture(scope="module")
def paired(fork_server: GangForkServer, home: Path) -> RunDir:
    return run(fork_server, home, "pairs", spellings(), **PAIRS, max_steps=150, lr_scheduler_type="constant")


def test_a_target_is_written_from_its_source(paired: RunDir) -> None:
    losses = series(paired, "eval_loss")

    assert losses[0] > unigram_loss(paired) > losses[150] + 0.2
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint_of(paired, 150))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_of(paired, 150))
    source = tokenizer("3 1 4", return_tensors="pt")

    def loss(target: str) -> float:
        labels = torch.tensor([[*tokenizer(target)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            return float(model(**source, labels=labels).loss)

    assert loss("three one four") < min(loss("three one"), loss("nine six seven"))
    written = tokenizer.decode(model.generate(**source, max_new_tokens=8)[0], skip_special_tokens=True).split()
    assert set(written) <= set(NUMBERS)
    assert written


def test_two_ranks_under_zero_3_learn_targets_like_one(fork_server: GangForkServer, home: Path, paired: RunDir) -> None:
    fields = {**PAIRS, "max_steps": 4, "lr_scheduler_type": "constant", "num_processes": 2, "zero_stage": 3}
    shared = run(fork_server, home, "pairs-shared", spellings(), **fields, per_device_batch_size=2)

    first = {step: loss for step, loss in series(paired, "loss").items() if step <= 4}
    assert series(shared, "loss") == pytest.approx(first, rel=1e-4)
    assert of_kind(shared, "sample")[0].text == of_kind(paired, "sample")[0].text


def test_a_classifier_beats_the_most_frequent_label_by_far(fork_server: GangForkServer, home: Path) -> None:
    from sklearn import metrics

    fields = {"kind": "classification", "objective": "classification", "model_type": "roberta"}
    fields |= {"sequence_length": 64, "train_batch_size": 16, "per_device_batch_size": 16, "learning_rate": 0.002}
    divine = [text for text in sentences() if '"divine"' in text][:40]  # knows only one of the labels
    held_out = [write_corpus(home / "divine", divine, "classification").model_copy(update={"id": "divine"})]
    run_dir = run(fork_server, home, "labels", sentences(), held_out=held_out, **fields)
    samples = samples_of(run_dir)
    batch = samples.validation_batch(list(range(samples.num_validation)))
    commonest = max(Counter(batch["labels"].tolist()).values()) / samples.num_validation

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint_of(run_dir, 100))
    assert model.config.id2label == {0: "divine", 1: "human"}
    with torch.no_grad():
        read = {name: torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask")}
        given = model(**read).logits.argmax(-1).numpy()
    accuracy = metrics.accuracy_score(batch["labels"], given)
    assert accuracy > commonest + (1 - commonest) / 2
    assert series(run_dir, "eval_accuracy")[100] == pytest.approx(accuracy)
    assert series(run_dir, "eval_f1")[100] == pytest.approx(metrics.f1_score(batch["labels"], given, average="macro"))
    assert of_kind(run_dir, "sample")[-1].text.split()[0] in ("divine", "human")
    right = series(run_dir, "eval_accuracy/divine")[100]
    assert right > 0.5
    f1 = 2 * right / (1 + right)
    assert series(run_dir, "eval_f1/divine")[100] == pytest.approx(f1 if right == 1 else f1 / 2)


def test_qwen2_learns_the_next_token(fork_server: GangForkServer, home: Path) -> None:
    run_dir = run(
        fork_server,
        home,
        "qwen2",
        [english()],
        model_type="qwen2",
        num_key_value_heads=2,
        vocab_size=384,
        learning_rate=0.01,
    )

    assert series(run_dir, "eval_loss")[0] > unigram_loss(run_dir) > series(run_dir, "eval_loss")[100]
    assert np.isfinite(series(run_dir, "eval_bits_per_byte")[100])
