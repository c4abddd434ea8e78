"""Reports of a trainer process: events to the journal, lines to the log. Only the first rank has a journal."""

import logging
import sys
import time
from typing import Any

from trainer.events import Journal, Phase

PROGRESS_SECONDS = 0.25  # minimum time between two reports of the same phase
HEARTBEAT_SECONDS = 5.0  # minimum time between two heartbeats
SYNC_SECONDS = 1.0  # between two syncs of the journal to the disk

log = logging.getLogger("trainer")


def log_to_stdout() -> None:
    """Send the log to standard output, with time and level on each line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


class Reporter:
    """Writes the events and log lines of one process, progress at most every PROGRESS_SECONDS."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._phase: Phase | None = None
        self._reported_at = 0.0
        self._synced_at = time.monotonic()
        self.step = 0  # the current step

    def phase(self, phase: Phase, done: int, total: int) -> None:
        """Report that `done` of `total` units of a phase are done."""
        now = time.monotonic()
        if phase == "train":
            self.step = min(done + 1, total)
        if phase == self._phase and done < total and now - self._reported_at < PROGRESS_SECONDS:
            return
        if phase != self._phase and phase != "train":
            self.line(phase)
        self._phase, self._reported_at = phase, now
        self.event("phase", phase=phase, done=done, total=total)

    def heartbeat(self) -> None:
        """Report that the current phase continues, so that the watchdog does not take it for a hang."""
        if self._phase is not None and time.monotonic() - self._reported_at >= HEARTBEAT_SECONDS:
            self._reported_at = time.monotonic()
            self.event("phase", phase=self._phase, done=0, total=1)

    @property
    def current_phase(self) -> str:
        """The phase reported last."""
        return self._phase or "prepare"

    def points(self, step: int, **values: float) -> None:
        """Report one value of each metric at a step."""
        if self._journal is None:
            return
        self._journal.points(step, **values)
        if (now := time.monotonic()) - self._synced_at > SYNC_SECONDS:
            self._journal.sync()
            self._synced_at = now

    def event(self, kind: str, **fields: Any) -> None:
        """Write an event of another kind, if this process has a journal."""
        if self._journal is not None:
            self._journal.write(kind, **fields)

    def line(self, text: str) -> None:
        """Write a line to the log, if this process has a journal."""
        if self._journal is not None:
            log.info(text)

    def warning(self, text: str) -> None:
        """Write a line about something that may need attention to the log, if this process has a journal."""
        if self._journal is not None:
            log.warning(text)

    def close(self) -> None:
        """Sync the journal and close it."""
        if self._journal is not None:
            self._journal.close()
