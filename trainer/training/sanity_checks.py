"""What must hold at the first step of a run: mistakes that would waste all steps are found before they do.

A model that knows nothing has the loss of a blind guess; something of a batch is learnt; and a batch that is computed
in parts has the loss of the whole. Imports torch through the engine.
"""

import math

import numpy as np

from trainer.data import batch as batches
from trainer.data.batch import IGNORE_INDEX, Batch
from trainer.datasets.base import Dataset
from trainer.engines.base import Engine
from trainer.failure import Failure
from trainer.report import Reporter
from trainer.spec import ENCODERS, TrainSpec

SPREAD = 0.02  # of fresh weights, in all families but T5, whose are 1
SLACK = 0.5  # nats beyond what is computed here
DEVIATIONS = 4  # that the mean over so many targets may be away from what is expected
DIFFERENCE = {"fp32": 1e-5, "bf16": 1e-2}  # between the sums of a batch in different parts, relative to the loss


def initial_loss_bounds(spec: TrainSpec, num_classes: int, num_targets: float) -> tuple[float, float] | None:
    """Between what the mean loss of so many targets lies before a model learns; None where it learnt before.

    A blind guess among n has ln n. Fresh logits are not equal: with a deviation of s, the mean loss is s^2 / 2 above
    it. And where the last matrix is the embedding too, a decoder says again what it reads, with a logit g.
    """
    if spec.objective == "dpo":  # the model still is its own reference
        return math.log(2) - 0.01, math.log(2) + 0.01
    if spec.base_model is not None:
        return None
    spread = 1.0 if spec.model_type == "t5" else SPREAD * math.sqrt(spec.hidden_size)
    slack = SLACK + DEVIATIONS * spread / math.sqrt(num_targets)
    if spec.objective == "classification":  # one text has much of the logits of another: many are as few
        slack = SLACK + DEVIATIONS * spread
    above = math.log(num_classes) + spread**2 / 2
    if spec.tie_word_embeddings and spec.model_type not in ENCODERS and spec.objective != "classification":
        again = math.sqrt(spec.hidden_size) * spread
        above = max(above, again) + math.log1p(math.exp(-abs(above - again)))
    return math.log(num_classes) - slack, above + slack


def labelled_fraction(batch: Batch) -> float:
    """How much of what has a label counts."""
    labels = batch["labels"]
    weights = batch.get("answered", batch.get("weights", np.ones_like(labels)))
    return float(np.mean((labels != IGNORE_INDEX) & (weights > 0)))


class FirstStepChecks:
    """The checks of a run that starts. All ranks take part."""

    def __init__(self, spec: TrainSpec, engine: Engine, samples: Dataset, report: Reporter) -> None:
        self._spec, self._engine, self._report = spec, engine, report
        self._batch = samples.train_batch(0, spec.train_batch_size)
        self._num_labels = len(samples.labels)
        self._loss = math.nan

    def before(self, vocab_size: int) -> None:
        """Check what is learnt of the first batch, and its loss in smaller parts than the step's. Raises Failure."""
        self._require("trained_share", labelled_fraction(self._batch), 1e-9, 1.0)
        num_targets = batches.num_targets(self._batch)
        parts = max(1, self._engine.spec.per_device_batch_size // 2)
        self._loss = self._engine.evaluate_sums(self._engine.split_micro_batches(self._batch, parts))[0] / num_targets
        bounds = initial_loss_bounds(self._spec, self._num_labels or vocab_size, num_targets)
        if bounds is not None:
            self._require("blind_loss", self._loss, *bounds)

    def after(self, loss: float) -> None:
        """Check the loss that the first step was taken with. Raises Failure."""
        if self._spec.lora_dropout == 0 or self._spec.tuning == "full":  # else it depends on what was dropped
            slack = DIFFERENCE[self._engine.precision] * max(1.0, abs(self._loss))
            self._require("whole_loss", loss, self._loss - slack, self._loss + slack)

    def _require(self, check: str, value: float, least: float, most: float) -> None:
        self._report.event("check", check=check, found=value, least=least, most=most)
        self._report.line(f"check {check}: {value:.6g}, from {least:.6g} to {most:.6g}")
        if not least <= value <= most:
            raise Failure("check_failed", check=check, found=value, least=least, most=most)
