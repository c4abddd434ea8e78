"""Runs for tests: corpora on disk, run directories of a model of 0.1 million parameters, and their events."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from trainer import events
from trainer.run_dir import CorpusInput, Inputs, RunDir
from trainer.spec import TrainSpec, resolve

SAMPLES = Path(__file__).parents[2] / "app" / "corpora" / "samples"
NETWORK = {
    "vocab_size": 384,
    "sequence_length": 32,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SMALL = {
    "name": "small",
    "corpora": ["corpus"],
    **NETWORK,
    "train_batch_size": 8,
    "per_device_batch_size": 4,
    "warmup_steps": 5,
    "max_steps": 20,
    "eval_steps": 1000,
    "save_steps": 1000,
}


def english(num_bytes: int = 60_000) -> str:
    """The beginning of the King James text that ships with Athanor."""
    return (SAMPLES / "king-james-bible.txt").read_text(encoding="utf-8")[:num_bytes]


def write_corpus(directory: Path, documents: list[str], kind: str = "text") -> CorpusInput:
    """Write a parsed corpus, in the format of an uploaded one."""
    directory.mkdir(parents=True, exist_ok=True)
    encoded = [document.encode() for document in documents]
    (directory / "text.bin").write_bytes(b"".join(encoded))
    np.cumsum([len(text) for text in encoded], dtype="<u8").tofile(directory / "index.bin")
    identity = hashlib.sha256(repr(documents).encode()).hexdigest()
    return CorpusInput(id="corpus", path=str(directory), sha256=identity, kind=kind)


def small_spec(**fields: Any) -> TrainSpec:
    """The spec of the small model with some fields replaced."""
    return resolve({**SMALL, **fields})


def make_run(home: Path, name: str, documents: list[str] | None = None, **fields: Any) -> RunDir:
    """A run directory, ready to start attempt 1. Runs with the same `home` share a cache."""
    documents = documents if documents is not None else [english()]
    corpus = write_corpus(home / f"corpus-{name}", documents, fields.pop("kind", "text"))
    tokenizer, held_out = fields.pop("tokenizer_path", None), fields.pop("held_out", [])
    corpora = [corpus, *fields.pop("other_corpora", [])]
    run_dir = RunDir(home / name)
    run_dir.path.mkdir()
    inputs = Inputs(corpora=corpora, validation=held_out, tokenizer=tokenizer, cache=str(home / "cache"))
    run_dir.create(small_spec(**fields), inputs, fence=1)
    return run_dir


def journal(run_dir: RunDir, fence: int = 1) -> list[events.Event]:
    """All events of an attempt."""
    return [event for event, _ in events.read(run_dir.events_path(fence), 0)]


def series(run_dir: RunDir, name: str) -> dict[int, float]:
    """The values of a metric in attempt 1, by step."""
    points = [event for event in journal(run_dir) if isinstance(event, events.PointsEvent)]
    return {point.step: float(point.values[name]) for point in points if name in point.values}


def of_kind(run_dir: RunDir, kind: str) -> list[Any]:
    """The events of one kind in attempt 1."""
    return [event for event in journal(run_dir) if event.kind == kind]


def checkpoint_of(run_dir: RunDir, step: int) -> Path:
    """The directory of a checkpoint that attempt 1 wrote."""
    return run_dir.attempt_path(1) / f"step-{step}"
