"""Chooses the checkpoint to resume from: the newest whose signature and files are intact."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.checkpoints import signature
from app.core import storage
from app.jobs.attempts.attempts import Saved
from app.jobs.planning.base_model import ModelFiles
from trainer.run_dir import sha256_file

log = logging.getLogger(__name__)


class StorageUnreachable(Exception):
    """The data directory is not visible on this node, so nothing is known about the checkpoints."""


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint to resume from, or None; and the IDs of damaged ones, each with the reason."""

    saved: Saved | None
    damaged: list[tuple[str, str]] = field(default_factory=list)

    @property
    def step(self) -> int:
        return self.saved.step if self.saved is not None else 0

    @property
    def is_hopeless(self) -> bool:
        """Whether all checkpoints are damaged: starting over would silently lose the progress."""
        return self.saved is None and bool(self.damaged)


def choose_resume_point(saved: Sequence[Saved]) -> ResumePoint:
    """Verify in order of preference and stop at the first intact one. Raises StorageUnreachable."""
    damaged: list[tuple[str, str]] = []
    if saved and not any(storage.checkpoint(one.path).parent.is_dir() for one in saved):
        raise StorageUnreachable("the directories of its checkpoints are not there: is the data directory mounted?")
    for candidate in saved:
        why = _what_differs(candidate)
        if why is None:
            return ResumePoint(candidate, damaged)
        log.warning("the checkpoint of step %d is damaged: %s", candidate.step, why)
        damaged.append((candidate.id, why))
    return ResumePoint(None, damaged)


def _what_differs(candidate: Saved) -> str | None:
    try:
        signature.verify(storage.checkpoint(candidate.path))
    except OSError as error:
        return error.strerror or type(error).__name__  # without the path, which users should not see
    except ValueError as error:
        return str(error)
    return None


def find_damage(base: ModelFiles | None) -> str | None:
    """What is wrong with the base model's files; None if they are intact. Raises StorageUnreachable."""
    if base is None:
        return "it was deleted"
    directory = storage.checkpoint(base.path)
    if not directory.parent.is_dir():
        raise StorageUnreachable("the directory of its base model is not there: is the data directory mounted?")
    for name, sha256 in base.files.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_file(path) != sha256:
            return f"{name} differs from what was checked"
    return None
