"""Where an attempt goes on: the newest checkpoint whose signature and files fit, older ones where newer are damaged."""

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
    """This node does not see the data: nothing is said of the checkpoints."""


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint to go on from, or none; and those passed over, each with what is wrong with it."""

    saved: Saved | None
    damaged: list[tuple[str, str]] = field(default_factory=list)

    @property
    def step(self) -> int:
        return self.saved.step if self.saved is not None else 0

    @property
    def is_hopeless(self) -> bool:
        """Whether there were checkpoints and none is left: starting over would lose them silently."""
        return self.saved is None and bool(self.damaged)


def choose_resume_point(saved: Sequence[Saved]) -> ResumePoint:
    """Verify from the best one on, and stop at the first that is whole. Raises Unreachable."""
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
        return error.strerror or type(error).__name__  # without the path, which is the server's own business
    except ValueError as error:
        return str(error)
    return None


def find_damage(base: ModelFiles | None) -> str | None:
    """What is wrong with the files of the base model, if something is. Raises Unreachable."""
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
