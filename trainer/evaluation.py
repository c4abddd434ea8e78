"""Measures a model in training: its loss on held-out text and a sample of what it writes. Imports torch."""

import math

import numpy as np
import torch
from torch import Tensor

from trainer import generate
from trainer.data import Dataset
from trainer.engine import Engine
from trainer.generate import Loaded
from trainer.model import IGNORED
from trainer.report import Report
from trainer.spec import TrainSpec

MAX_SEQUENCES = 64  # evenly spread over the validation text, the same ones each time
PROMPT_TOKENS = 20
SAMPLE_TOKENS = 80
TEMPERATURE = 0.8


class Evaluation:
    """What is measured at every evaluation of a run."""

    def __init__(self, spec: TrainSpec, dataset: Dataset, engine: Engine, loaded: Loaded) -> None:
        self._spec, self._engine, self._loaded = spec, engine, loaded
        count = min(MAX_SEQUENCES, dataset.num_validation)
        numbers = np.linspace(0, dataset.num_validation - 1, count).round().astype(int).tolist()
        rows = dataset.validation_batch(numbers)
        self._num_targets = rows[:, 1:].size
        self._num_bytes = dataset.num_bytes(rows[:, 1:])
        self._micro_batches = self._share(torch.from_numpy(rows))
        self._prompt = self._choose_prompt(dataset)

    def _share(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """This rank's rows. All ranks get equally many, if need be rows that count for nothing."""
        engine = self._engine
        missing = -len(rows) % engine.world_size
        tokens = torch.cat([rows[:, :-1], rows[:1, :-1].expand(missing, -1)])
        targets = torch.cat([rows[:, 1:], torch.full((missing, rows.shape[1] - 1), IGNORED)])
        size = engine.per_device_batch_size
        mine = (
            torch.split(part[engine.rank :: engine.world_size].to(engine.device), size) for part in (tokens, targets)
        )
        return list(zip(*mine, strict=True))

    def _choose_prompt(self, dataset: Dataset) -> str:
        room = self._spec.sequence_length // 2
        tokenizer = self._loaded.tokenizer.backend_tokenizer
        if not self._spec.sample_prompt:
            return str(tokenizer.decode(dataset.validation_prompt(min(PROMPT_TOKENS, room))))
        ids = tokenizer.encode(self._spec.sample_prompt).ids
        return self._spec.sample_prompt if len(ids) <= room else str(tokenizer.decode(ids[:room]))

    def run(self, step: int, report: Report) -> dict[str, float]:
        """Measure, report and return the metrics. All ranks take part."""
        report.phase("evaluate", 0, 1)
        nats = self._engine.nats(self._micro_batches)
        bits_per_byte = nats / math.log(2) / self._num_bytes if self._num_bytes else math.nan
        metrics = {"eval_loss": nats / self._num_targets, "eval_bits_per_byte": bits_per_byte}
        report.points(step, **metrics)
        text = self._sample()
        report.event("sample", step=step, prompt=self._prompt, text=text)
        report.line(f"step {step} eval_loss {metrics['eval_loss']:.4f} bits_per_byte {bits_per_byte:.4f}")
        report.phase("evaluate", 1, 1)
        return metrics

    def _sample(self) -> str:
        """Continue the prompt on the first rank; on all ranks where each holds only a part of the weights."""
        if self._engine.rank and self._spec.zero_stage < 3:
            return ""
        model = self._loaded.model
        model.eval()
        pieces = generate.stream(
            self._loaded, self._prompt, max_tokens=SAMPLE_TOKENS, temperature=TEMPERATURE, seed=self._spec.seed
        )
        text = "".join(piece.text for piece in pieces)
        model.train()
        return text
