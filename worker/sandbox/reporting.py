"""Helpers of sandboxed child processes: progress reports as JSON lines on standard output."""

import sys
import time
from typing import Any

from trainer.formats import jsonlines

REPORT_SECONDS = 0.5


class ProgressReporter:
    """Reports progress to the parent process, at most every REPORT_SECONDS. `total` is the final value of `done`."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next = 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_SECONDS
            report({"done": done, "total": self._total})


def report(message: dict[str, Any]) -> None:
    """Send one message to the parent process, as a JSON line on standard output."""
    jsonlines.write(sys.stdout, message)
