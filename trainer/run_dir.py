"""The directory of one run: its layout, and how checkpoints are written and published. Imports pydantic only.

RUN_DIR/
  spec.json                  the resolved TrainSpec
  log.txt                    output of the processes
  attempts/<fence>/inputs.json   paths of corpora, tokenizer, cache and the checkpoint to resume from
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
CORPORA_SUFFIX = ".corpora.json"  # of the list of texts, by SHA-256, beside an entry of the cache made from them
LOCK_SUFFIX = ".lock"  # of the file beside it that is locked while an entry is created
MAKING = "making-"  # before the name of an entry, and a part of its own after it: a directory in which it is created
SIGNATURE = "SIGNATURE"  # written next to the manifest by the publisher; the trainer neither writes nor reads it


class CorpusInput(BaseModel):
    """A parsed corpus on disk: `text.bin`, the concatenated documents in UTF-8, and `index.bin`, their end offsets.

    `kind` is text, or the kind of its records, which are JSON objects: chat, completion, classification, preference or
    seq2seq.
    """

    id: str
    path: str
    sha256: str
    kind: str = "text"


class Inputs(BaseModel):
    """Paths on this machine of what a spec refers to by ID. `cache` is for tokenized data and shared by all runs."""

    model_config = ConfigDict(extra="forbid")

    corpora: list[CorpusInput]
    validation: list[CorpusInput] = []  # held out entirely
    tokenizer: str | None = None
    base: str | None = None  # the base model with its tokenizer, in Hugging Face layout
    cache: str
    resume: str | None = None  # the checkpoint to resume from
    skipped_steps: list[int] = []  # steps whose samples are skipped


class RunDir:
    """Paths inside a run directory."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def spec_path(self) -> Path:
        """The resolved spec."""
        return self.path / "spec.json"

    def inputs_path(self, fence: int) -> Path:
        """The inputs of an attempt."""
        return self.attempt_path(fence) / "inputs.json"

    @property
    def log_path(self) -> Path:
        """The output of all processes of all attempts."""
        return self.path / "log.txt"

    def tokenizer_path(self, fence: int) -> Path:
        """The directory of an attempt's tokenizer."""
        return self.attempt_path(fence) / "tokenizer"

    def events_path(self, fence: int) -> Path:
        """The journal of an attempt. Each attempt has its own, so that processes of an older one do no harm."""
        return self.attempt_path(fence) / "events.jsonl"

    def attempt_path(self, fence: int) -> Path:
        """The directory of an attempt."""
        return self.path / "attempts" / str(fence)

    def checkpoint_path(self, step: int, fence: int) -> Path:
        """The directory of a published checkpoint."""
        return self.path / "checkpoints" / f"step-{step}-{fence}"

    def create(self, spec: TrainSpec, inputs: Inputs, fence: int) -> None:
        """Create the directory of an attempt with spec and inputs. Safe to repeat."""
        self.attempt_path(fence).mkdir(parents=True, exist_ok=True)
        (self.path / "checkpoints").mkdir(exist_ok=True)
        write_atomically(self.spec_path, spec.model_dump_json(indent=2))
        write_atomically(self.inputs_path(fence), inputs.model_dump_json(indent=2))

    def spec(self) -> TrainSpec:
        """Read the spec. Raises ValidationError if it is invalid."""
        return TrainSpec.model_validate_json(self.spec_path.read_text())

    def inputs(self, fence: int) -> Inputs:
        """Read the inputs of an attempt. Raises ValidationError if they are invalid."""
        return Inputs.model_validate_json(self.inputs_path(fence).read_text())


def write_atomically(path: Path, text: str) -> None:
    """Write a small file through a temporary one, so that readers see the old or the new content, never a part."""
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


def sync_files(paths: Iterable[Path]) -> None:
    """Force the content of files to the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, identity: dict[str, Any], beat: Callable[[], None] = lambda: None) -> None:
    """Complete a checkpoint: sync its files and list them in the manifest with size and hash, together with `identity`.

    `beat` is called after each file, as hashing gigabytes takes time.
    """
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name not in (MANIFEST, SIGNATURE))
    names = sorted(str(path.relative_to(directory)) for path in paths)
    files = []
    for name in names:
        path = directory / name
        files.append({"name": name, "size": path.stat().st_size, "sha256": sha256_file(path)})
        beat()
    sync_files(directory / name for name in names)
    write_atomically(directory / MANIFEST, json.dumps({"files": files, **identity}, indent=2, ensure_ascii=False))


def verify(directory: Path) -> dict[str, Any]:
    """Compare a checkpoint with its manifest, which is returned. Raises ValueError naming a file that differs."""
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
    """Verify a checkpoint and rename it to its final path. Returns the manifest; raises ValueError if a file differs.

    Safe to repeat after a crash: an existing target is verified instead.
    """
    if target.exists():
        return verify(target)
    manifest = verify(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    sync_directory(target.parent)
    sync_directory(source.parent)
    return manifest
