"""The directory of one run: which file lies where, and how a checkpoint becomes whole. Imports pydantic only.

RUN_DIR/
  spec.json                  the resolved TrainSpec
  log.txt                    what the processes printed
  attempts/<fence>/inputs.json   where corpora, tokenizer, cache and the checkpoint to go on from lie on this machine
  attempts/<fence>/tokenizer/    the tokenizer of the attempt, in Hugging Face layout
  attempts/<fence>/events.jsonl  the journal of an attempt (trainer appends, supervisor ships)
  attempts/<fence>/step-<n>/     a checkpoint being written
  checkpoints/step-<n>-<fence>/  a published checkpoint
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from trainer.spec import TrainSpec

MANIFEST = "MANIFEST.json"
SIGNATURE = "SIGNATURE"  # put beside it by who publishes: the trainer neither writes nor reads it


class CorpusInput(BaseModel):
    """A parsed corpus on disk: `text.bin` (documents back to back, UTF-8) and `index.bin` (their ends).

    `kind` is text, or what its documents are records of, each one a JSON object: chat, completion, classification,
    preference or seq2seq.
    """

    id: str
    path: str
    sha256: str
    kind: str = "text"


class Inputs(BaseModel):
    """What a spec names by id, as paths on this machine. `cache` holds tokenised data, shared by all runs."""

    model_config = ConfigDict(extra="forbid")

    corpora: list[CorpusInput]
    validation: list[CorpusInput] = []  # held out whole
    tokenizer: str | None = None
    base: str | None = None  # the model to start from, in Hugging Face layout, its tokenizer beside it
    cache: str
    resume: str | None = None  # the checkpoint to go on from
    per_device_batch_size: int | None = None  # smaller than the spec's where memory was short; same global batch
    skipped_steps: list[int] = []  # their samples are passed over


class RunDir:
    """Paths inside a run directory, made on first use."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def spec_path(self) -> Path:
        return self.path / "spec.json"

    def inputs_path(self, fence: int) -> Path:
        return self.attempt_path(fence) / "inputs.json"

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    def tokenizer_path(self, fence: int) -> Path:
        return self.attempt_path(fence) / "tokenizer"

    def events_path(self, fence: int) -> Path:
        """The journal of one attempt: a zombie of an older attempt writes into its own."""
        return self.attempt_path(fence) / "events.jsonl"

    def attempt_path(self, fence: int) -> Path:
        return self.path / "attempts" / str(fence)

    def checkpoint_path(self, step: int, fence: int) -> Path:
        return self.path / "checkpoints" / f"step-{step}-{fence}"

    def create(self, spec: TrainSpec, inputs: Inputs, fence: int) -> None:
        """Lay the directory for an attempt. Safe to repeat."""
        self.attempt_path(fence).mkdir(parents=True, exist_ok=True)
        (self.path / "checkpoints").mkdir(exist_ok=True)
        write_atomically(self.spec_path, spec.model_dump_json(indent=2))
        write_atomically(self.inputs_path(fence), inputs.model_dump_json(indent=2))

    def spec(self) -> TrainSpec:
        """The spec as stored. Raises ValidationError for one that was tampered with."""
        return TrainSpec.model_validate_json(self.spec_path.read_text())

    def inputs(self, fence: int) -> Inputs:
        """What an attempt works on."""
        return Inputs.model_validate_json(self.inputs_path(fence).read_text())


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Force a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, identity: dict[str, Any], beat: Callable[[], None] = lambda: None) -> None:
    """Close a checkpoint: list every file with size and hash, beside what it was made from. Files are synced first.

    `beat` is called behind each file: hashing gigabytes takes its time.
    """
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name not in (MANIFEST, SIGNATURE))
    names = sorted(str(path.relative_to(directory)) for path in paths)
    files = []
    for name in names:
        path = directory / name
        files.append({"name": name, "size": path.stat().st_size, "sha256": sha256_file(path)})
        beat()
    _sync_files(directory / name for name in names)
    write_atomically(directory / MANIFEST, json.dumps({"files": files, **identity}, indent=2, ensure_ascii=False))


def verify(directory: Path) -> dict[str, Any]:
    """Read a checkpoint against its manifest and return that. Raises ValueError naming the file that differs."""
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
        files = [(str(entry["name"]), entry["size"], entry["sha256"]) for entry in manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{MANIFEST} cannot be read") from None
    for name, size, sha256 in files:
        path = directory / name
        if not path.is_file() or path.stat().st_size != size or sha256_file(path) != sha256:
            raise ValueError(f"{name} differs from {MANIFEST}")
    return manifest


def publish(source: Path, target: Path) -> dict[str, Any]:
    """Verify a written checkpoint, then move it to its final name in one rename. Returns the manifest.

    Repeating it after a crash is safe: a target that is already there is verified instead.
    """
    if target.exists():
        return verify(target)
    manifest = verify(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    sync_directory(target.parent)
    sync_directory(source.parent)
    return manifest


def _sync_files(paths: Iterable[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
