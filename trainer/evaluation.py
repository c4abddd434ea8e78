"""Measures a model in training: its loss on held-out text and a sample of what it writes. Imports torch."""

import math

import numpy as np

from trainer import batch as batches
from trainer.engine import Engine
from trainer.generate import Loaded
from trainer.report import Report
from trainer.samples import Samples
from trainer.showing import showing
from trainer.spec import TrainSpec

MAX_SEQUENCES = 64  # evenly spread over the validation text, the same ones each time


class Evaluation:
    """What is measured at every evaluation of a run."""

    def __init__(self, spec: TrainSpec, samples: Samples, engine: Engine, loaded: Loaded) -> None:
        self._spec, self._engine, self._loaded = spec, engine, loaded
        count = min(MAX_SEQUENCES, samples.num_validation)
        numbers = np.linspace(0, samples.num_validation - 1, count).round().astype(int).tolist()
        batch = samples.validation_batch(numbers)
        self._num_targets = batches.num_targets(batch)
        self._num_bytes = samples.num_bytes(batch)
        # All ranks get equally many rows, if need be such as count for nothing.
        whole = batches.filled(batch, -(-count // engine.world_size) * engine.world_size)
        self._micro_batches = engine.share(whole)
        self._showing = showing(spec, samples, loaded)

    def run(self, step: int, report: Report) -> dict[str, float]:
        """Measure, report and return the metrics. All ranks take part."""
        report.phase("evaluate", 0, 1)
        nats, *counted = self._engine.sums(self._micro_batches)
        metrics = {"eval_loss": nats / self._num_targets}
        for name, value in zip(self._engine.objective.counted, counted, strict=True):
            metrics[f"eval_{name}"] = value / self._num_targets
        if self._num_bytes:
            metrics["eval_bits_per_byte"] = nats / math.log(2) / self._num_bytes
        report.points(step, **metrics)
        text = self._sample()
        report.event("sample", step=step, prompt=self._showing.prompt, text=text)
        report.line(f"step {step} " + " ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        report.phase("evaluate", 1, 1)
        return metrics

    def _sample(self) -> str:
        """Answer the prompt on the first rank; on all ranks where each holds only a part of the weights."""
        if self._engine.rank and self._spec.zero_stage < 3:
            return ""
        self._loaded.model.eval()
        text = self._showing.answer(self._loaded)
        self._loaded.model.train()
        return text
