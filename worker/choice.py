"""Where an attempt goes on: the newest checkpoint whose signature and files fit, older ones where newer are damaged."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from app import storage
from app.checkpoints import signature
from app.jobs.attempts import Saved

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
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


def choose(saved: Sequence[Saved]) -> Choice:
    """Verify from the best one on, and stop at the first that is whole."""
    damaged: list[tuple[str, str]] = []
    for candidate in saved:
        try:
            signature.verify(storage.checkpoint(candidate.path))
        except (OSError, ValueError) as error:
            log.warning("the checkpoint of step %d is damaged: %s", candidate.step, error)
            damaged.append((candidate.id, str(error)))
            continue
        return Choice(candidate, damaged)
    return Choice(None, damaged)
