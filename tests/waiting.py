"""Waiting for what another process does: look often at first, give up late, say what was awaited."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SHORTEST, LONGEST = 0.02, 0.1  # pauses in seconds: looking is a request that costs the waited-for process time


def patience() -> float:
    """How many times longer everything may take: as many as there are runnable processes for each processor."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def until(look: Callable[[], T], seconds: float = 20, what: str = "the condition") -> T:
    """Call `look` until it answers something true, and return that. Fails after so many seconds of a machine that is
    not overloaded.
    """
    seconds *= patience()
    deadline = time.monotonic() + seconds
    pause = SHORTEST
    while not (result := look()):
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds:.0f} s; last seen: {result!r}"
        time.sleep(pause)
        pause = min(LONGEST, 1.2 * pause)
    return result
