"""Evaluates a model in training: its metrics on validation samples, and samples of its output. Imports torch."""

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from trainer.data import batch as batches
from trainer.datasets.base import Dataset
from trainer.datasets.prepare import SamplePrompt
from trainer.engines.base import Engine
from trainer.inference.generation import LoadedModel
from trainer.report import Reporter
from trainer.rounding import round_up_to_multiple
from trainer.spec import TrainSpec
from trainer.training.eval_samples import EvalSample, make_eval_samples


class EvalSplit:
    """A set of validation samples, evaluated together. The names of its metrics end in `suffix`."""

    def __init__(self, samples: Dataset, engine: Engine, suffix: str) -> None:
        self._engine, self._suffix = engine, suffix
        count = min(samples.max_eval_samples, samples.num_validation)
        numbers = np.linspace(0, samples.num_validation - 1, count).round().astype(int).tolist()
        batch = samples.validation_batch(numbers)
        self._num_targets = batches.num_targets(batch)
        self._num_bytes = samples.num_bytes(batch)
        # All ranks get the same number of rows; padding rows have no targets.
        padded = batches.pad_batch(batch, round_up_to_multiple(count, engine.world_size))
        self._micro_batches = engine.split_micro_batches(padded)

    def measure(self) -> dict[str, float]:
        """The metrics by name; the loss is the mean over targets, in nats. All ranks take part."""
        loss_sum, *sums = self._engine.evaluate_sums(self._micro_batches)
        metrics = {"loss": loss_sum / self._num_targets, **self._engine.objective.metrics(sums, self._num_targets)}
        if self._num_bytes:
            metrics["bits_per_byte"] = loss_sum / math.log(2) / self._num_bytes
        return {f"eval_{name}{self._suffix}": value for name, value in metrics.items()}


class Evaluation:
    """The evaluations of a run: on its validation samples, on each validation corpus, and samples of its output.

    A run without its own validation samples uses those of its first validation corpus.
    """

    def __init__(
        self,
        spec: TrainSpec,
        samples: Dataset,
        held_out: Mapping[str, Dataset],
        engine: Engine,
        loaded: LoadedModel,
        prompt: SamplePrompt,
    ) -> None:
        self._spec, self._prompt = spec, prompt
        self._engine = engine
        self._loaded = loaded
        validation = samples if samples.num_validation else next(iter(held_out.values()))
        self._splits = [EvalSplit(validation, engine, "")]
        self._splits += [EvalSplit(others, engine, f"/{corpus}") for corpus, others in held_out.items()]
        self._train, self._validation = samples, validation

    @cached_property
    def _eval_samples(self) -> list[EvalSample]:
        return make_eval_samples(self._spec, self._train, self._validation, self._loaded, self._prompt)

    def run(self, step: int, report: Reporter) -> dict[str, float]:
        """Evaluate, write the results to the journal and the log, and return the metrics. All ranks take part."""
        metrics: dict[str, float] = {}
        for done, split in enumerate(self._splits):
            report.phase("evaluate", done, len(self._splits))
            metrics.update(split.measure())
        report.points(step, **metrics)
        for sample, text in self._samples(report):
            report.event("sample", step=step, split=sample.split, prompt=sample.prompt, text=text)
        report.line(f"step {step} " + " ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        report.phase("evaluate", len(self._splits), len(self._splits))
        return metrics

    def _samples(self, report: Reporter) -> list[tuple[EvalSample, str]]:
        """The answer to each prompt, on rank 0 only; under ZeRO-3 on all ranks, as each holds a part of the weights.

        One is missing where a library fails: that is worth a line in the log, but does not end the run.
        """
        if self._engine.rank and self._spec.zero_stage < 3:
            return []
        answers: list[tuple[EvalSample, str]] = []
        self._loaded.model.eval()
        try:
            for sample in self._eval_samples:
                answers.append((sample, sample.answer(self._loaded)))
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            report.warning(f"no sample: {type(error).__name__}: {error}")
        finally:
            self._loaded.model.train()
        return answers
