"""What every sandboxed child shares: progress reports as JSON lines on standard output, and lowered resource limits."""

import resource
import sys
import time
from typing import Any

from trainer import jsonlines

REPORT_SECONDS = 0.5


class ProgressReporter:
    """Tells the parent how far the reading is, not too often."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next = 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_SECONDS
            report({"done": done, "total": self._total})


def report(message: dict[str, Any]) -> None:
    """One line to the parent."""
    jsonlines.write(sys.stdout, message)


def lower_rlimit(kind: int, value: int) -> None:
    """Lower a resource limit of this process, never raising what was there."""
    _soft, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
