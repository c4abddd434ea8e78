"""Checks at the first step of a run, which find mistakes that would make all of its training useless.

The initial loss is that of a random guess, part of each batch has labels that count, and the loss of a batch does not
depend on its split into micro-batches. Imports torch through the engine.
"""

import math

import numpy as np

from trainer.data import batch as batches
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.datasets.base import Dataset
from trainer.engines.base import Engine
from trainer.failure import Failure
from trainer.families import ENCODERS
from trainer.report import Reporter
from trainer.spec import TrainSpec

INITIAL_STD = 0.02  # standard deviation of initial weights in all families but T5, where it is 1
SLACK = 0.5  # nats of tolerance on both sides
DEVIATIONS = 4  # standard deviations that the mean over the targets may differ from its expectation
DIFFERENCE = {"fp32": 1e-5, "bf16": 1e-2}  # allowed between two splits of a batch, relative to the loss


def initial_loss_bounds(spec: TrainSpec, num_classes: int, num_targets: float) -> tuple[float, float] | None:
    """The bounds, in nats, of the mean loss over so many targets before training; None if the model is pretrained.

    A uniform guess among n classes has the loss ln n. Initial logits are not equal: if their standard deviation is s,
    the mean loss is s^2 / 2 higher. With tied embeddings a decoder predicts the token that it reads, with a logit of
    about s times the square root of the hidden size.
    """
    if spec.objective == "dpo":  # the model still is its own reference
        return math.log(2) - 0.01, math.log(2) + 0.01
    if spec.base_model is not None:
        return None
    spread = 1.0 if spec.model_type == "t5" else INITIAL_STD * math.sqrt(spec.hidden_size)
    slack = SLACK + DEVIATIONS * spread / math.sqrt(num_targets)
    if spec.objective == "classification":  # the logits of different texts are similar: more targets do not help
        slack = SLACK + DEVIATIONS * spread
    above = math.log(num_classes) + spread**2 / 2
    if spec.tie_word_embeddings and spec.model_type not in ENCODERS and spec.objective != "classification":
        copy_logit = math.sqrt(spec.hidden_size) * spread
        above = max(above, copy_logit) + math.log1p(math.exp(-abs(above - copy_logit)))
    return math.log(num_classes) - slack, above + slack


def labeled_fraction(batch: Batch) -> float:
    """The fraction of the positions of a batch whose label counts in the loss."""
    labels = batch["labels"]
    weights = batch.get("answered", batch.get("weights", np.ones_like(labels)))
    return float(np.mean((labels != IGNORE_INDEX) & (weights > 0)))


class FirstStepChecks:
    """The checks of a run that starts at step 1. All ranks take part."""

    def __init__(self, spec: TrainSpec, engine: Engine, samples: Dataset, report: Reporter) -> None:
        self._spec = spec
        self._engine = engine
        self._report = report
        self._batch = samples.train_batch(0, spec.train_batch_size)
        self._num_labels = len(samples.labels)
        self._loss = math.nan

    def before(self, vocab_size: int) -> None:
        """Check the labels of the first batch, and its loss in micro-batches of half the size. Raises Failure."""
        self._require("trained_share", labeled_fraction(self._batch), 1e-9, 1.0)
        num_targets = batches.num_targets(self._batch)
        rows = max(1, self._engine.spec.per_device_batch_size // 2)
        self._loss = self._engine.evaluate_sums(self._engine.split_micro_batches(self._batch, rows))[0] / num_targets
        bounds = initial_loss_bounds(self._spec, self._num_labels or vocab_size, num_targets)
        if bounds is not None:
            self._require("blind_loss", self._loss, *bounds)

    def after(self, loss: float) -> None:
        """Check the loss of the first step against the one that `before` computed. Raises Failure."""
        if self._spec.lora_dropout == 0 or self._spec.tuning == "full":  # else the loss depends on the dropout mask
            slack = DIFFERENCE[self._engine.precision] * max(1.0, abs(self._loss))
            self._require("whole_loss", loss, self._loss - slack, self._loss + slack)

    def _require(self, check: str, value: float, least: float, most: float) -> None:
        self._report.event("check", check=check, found=value, least=least, most=most)
        self._report.line(f"check {check}: {value:.6g}, from {least:.6g} to {most:.6g}")
        if not least <= value <= most:
            raise Failure("check_failed", check=check, found=value, least=least, most=most)
