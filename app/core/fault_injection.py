"""Failpoints where a test can kill this process, for moments too short to hit from outside.

ATHANOR_FAILPOINTS names a directory; a file there of a point's name arms that point once.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path


def reach(point: str) -> None:
    """Exit at this failpoint if a test has armed it."""
    directory = os.environ.get("ATHANOR_FAILPOINTS")
    if directory is None:
        return
    armed = Path(directory) / point
    with suppress(FileNotFoundError):
        armed.rename(armed.with_suffix(".reached"))  # only one process wins, and only once
        os.kill(os.getpid(), signal.SIGKILL)
