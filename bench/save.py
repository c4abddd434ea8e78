"""How long a save keeps training waiting: the trainer's, beside its own blocking one and torch.save, in the same run.

`PYTHONPATH=. python bench/save.py [--smoke]`. A decoder of about 40 million parameters trains in one process; every
save is of weights and both moments. The goal is to wait 0.3 of a blocking save. How much longer steps take meanwhile
stands beside it.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trainer.engines import base as engines  # before torch: it says which accelerators DeepSpeed looks for
from trainer.engines import factory

# isort: split
import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from bench.support.arguments import IS_SMOKE
from tests.trainer.runs import english, write_corpus
from trainer.data import tokenizer
from trainer.datasets.prepare import Prepared
from trainer.events import Journal
from trainer.inference.generation import LoadedModel
from trainer.launch.environment import free_port
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective
from trainer.report import Reporter
from trainer.spec import resolve
from trainer.training import optimizer_state
from trainer.training.async_checkpoint import AsyncCheckpointer
from trainer.training.checkpoint import CheckpointWriter
from trainer.training.loop_state import LoopState

ROUNDS, STEPS_AROUND = 4, 6
SHAPE = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 8, "num_attention_heads": 10}
SHAPE["num_key_value_heads"] = SHAPE["num_attention_heads"]


class Training:
    """A run that takes steps and can save in three ways."""

    def __init__(self, home: Path) -> None:
        self.home = home
        source = write_corpus(home / "corpus", [english(200_000)])
        tokenizer.save(tokenizer.train([source], 2048, lambda done, total: None), home / "tokenizer")
        opened = PreTrainedTokenizerFast.from_pretrained(home / "tokenizer")
        batch_size = {"train_batch_size": 2, "per_device_batch_size": 2, "sequence_length": 64}
        self.spec = resolve({"name": "save", "corpora": ["c"], "vocab_size": 2048, **SHAPE, **batch_size})
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(free_port())
        device = engines.init_process_group("cpu")
        self.model = init_model(self.spec, 2048, 0, 1, device)
        self.engine = factory.make_engine(self.spec, objective(self.spec, self.model), device)
        rows = np.random.default_rng(0).integers(0, 2048, (2, 65))
        self.batch = self.engine.split_micro_batches({"input_ids": rows[:, :-1], "labels": rows[:, 1:]})
        self.loaded = LoadedModel(self.model, opened)
        self.prepared = Prepared(
            tokenizer=str(home / "tokenizer"), tokenizer_sha256="t", tokens=str(home), data_sha256="d", max_steps=1
        )
        self.report = Reporter(Journal(home / "events.jsonl"))
        self.saver = AsyncCheckpointer(self.engine, self.report, home, lambda directory, step: None)
        self.number = 0

    def steps(self, count: int = 1) -> float:
        """Seconds of so many steps."""
        started_at = time.perf_counter()
        for _step in range(count):
            self.number += 1
            self.engine.step(self.number, self.batch, 128, False)
            self.saver.poll()
        return time.perf_counter() - started_at

    def save(self) -> CheckpointWriter:
        """A save of the present step."""
        directory = self.home / f"step-{self.number}"
        return CheckpointWriter(directory, self.number, self.engine, self.loaded, self.prepared, LoopState())

    def beside(self) -> None:
        """As jobs save."""
        self.saver.start(self.save(), is_full=False, is_lost=False)

    def blocking(self) -> None:
        """The same files, while training waits."""
        save = self.save()
        save.begin(False)
        save.write(lambda: None)

    def torch_save(self) -> None:
        """Weights and optimizer by torch.save, synced: what many trainers do."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": dict(optimizer_state.tensors(self.engine, lambda: None)),
        }
        with (self.home / "torch.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())


def lost(training: Training, way: Callable[[], None]) -> tuple[float, float]:
    """Seconds that training waited for a save, and by what factor the steps after it were slower."""
    without = statistics.median(training.steps() for _ in range(STEPS_AROUND))
    started_at = time.perf_counter()
    way()
    stall = time.perf_counter() - started_at
    during = statistics.median(training.steps() for _ in range(STEPS_AROUND))
    training.saver.finish()
    return stall, during / without


def main() -> None:
    """All ways by turns; the medians."""
    with tempfile.TemporaryDirectory() as home:
        training = Training(Path(home))
        training.steps(3)
        measured: dict[str, list[tuple[float, float]]] = {"beside": [], "blocking": [], "torch_save": []}
        for _round in range(ROUNDS):
            for name, saves in measured.items():
                saves.append(lost(training, getattr(training, name)))
        size = training.save().num_bytes
    stalls = {name: statistics.median(stall for stall, _slower in saves) for name, saves in measured.items()}
    slower = statistics.median(factor for _stall, factor in measured["beside"])
    sys.stdout.write(
        f"save of {size / 1e6:.0f} MB: training waits {stalls['beside']:.3f} s; blocking {stalls['blocking']:.3f} s, "
        f"torch.save {stalls['torch_save']:.3f} s: {stalls['beside'] / stalls['blocking']:.2f} and "
        f"{stalls['beside'] / stalls['torch_save']:.2f} of those (goal 0.3); steps meanwhile take {slower:.2f} times "
        "as long\n"
    )


if __name__ == "__main__":
    if IS_SMOKE:
        ROUNDS, STEPS_AROUND = 1, 1
        SHAPE.update(hidden_size=80, intermediate_size=160, num_hidden_layers=2)
    main()
