"""Helpers of sandboxed child processes: progress reports as JSON lines on standard output, and resource limits."""

import resource
import sys
import time
from typing import Any

from trainer import jsonlines

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


def lower_rlimit(kind: int, value: int) -> None:
    """Set a resource limit (resource.RLIMIT_...) of this process, but never above its present hard limit."""
    _soft, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
