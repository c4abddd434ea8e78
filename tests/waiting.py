"""Waiting for what another process does: look often, give up late, say what was awaited."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], seconds: float = 20, what: str = "the condition") -> T:
    """Call `look` until it answers something true, and return that. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := look()):
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s; last seen: {result!r}"
        time.sleep(0.02)
    return result
