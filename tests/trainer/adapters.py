"""Checkpoints of LoRA jobs on one base, for tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trainer.bases import start_from
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import SAMPLES, make_run
from trainer.run_dir import RunDir

STEPS = 20


@dataclass(frozen=True)
class AdaptedModels:
    """A base, and checkpoints of jobs that adapted it to song lyrics."""

    base: Path
    checkpoints: list[Path]


def train_adapters(gangs: GangForkServer, home: Path, **fields: Any) -> AdaptedModels:
    """Train a base, then two checkpoints of one LoRA job, and one of another job with a higher rank."""
    base = _publish(gangs, make_run(home, "base", max_steps=60, save_steps=60, learning_rate=0.01))[0]
    lyrics = [(SAMPLES / "song-lyrics.jsonl").read_text(encoding="utf-8")[:20_000]]
    shape = {"base_model": "base", "tuning": "lora", "max_steps": STEPS, "learning_rate": 0.01, **fields}
    checkpoints = [
        checkpoint
        for rank, save_steps in ((4, STEPS // 2), (8, STEPS))
        for checkpoint in _publish(
            gangs,
            start_from(make_run(home, f"rank-{rank}", lyrics, lora_rank=rank, save_steps=save_steps, **shape), base),
        )
    ]
    return AdaptedModels(base, checkpoints)


def _publish(gangs: GangForkServer, run_dir: RunDir) -> list[Path]:
    """Carry out a run, and return its checkpoints, the first step first."""
    done = gangs.command("trainer", "train", str(run_dir.path), OMP_NUM_THREADS="1").result()
    assert done.returncode == 0, done.stderr
    return sorted((run_dir.path / "checkpoints").glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
