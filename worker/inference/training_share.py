"""Limits what texts take of a node's processors while jobs train on them."""

import os
import threading
import time
from collections.abc import Callable

from app.core.node_budget import node_budget

SHARE = 0.06  # of the node's processors; bench/beside_training.py measures what it costs a training
BURST_SECONDS = 4.0  # of processor time, which a text may use at once after a time without any
MAX_STEP_SECONDS = 0.5  # of processor time that count of one step: loading a model delays no text for long
LOOK_SECONDS = 0.05  # between checks whether the text may continue


class TrainingShare:
    """A token bucket of this process's processor time. Texts wait at an empty one only while a job trains on the node.

    Low priority alone is not enough: a training sleeps and wakes thousands of times a second where its threads meet,
    and each time waits some microseconds until a text has left the processor.
    """

    def __init__(self, num_processors: int | None = None) -> None:
        self._rate = SHARE * (num_processors or os.cpu_count() or 1)
        self._lock = threading.Lock()
        self._seconds, self._now, self._used = BURST_SECONDS, time.monotonic(), time.process_time()

    def pause(self, is_wanted: Callable[[], bool]) -> None:
        """Sleep until there is processor time left, no job trains, or nothing is wanted any longer."""
        while not self._has_time() and is_wanted():
            time.sleep(LOOK_SECONDS)

    def _has_time(self) -> bool:
        with self._lock:
            now, used = time.monotonic(), time.process_time()
            self._seconds += (now - self._now) * self._rate - min(used - self._used, MAX_STEP_SECONDS)
            self._seconds = min(BURST_SECONDS, self._seconds)
            self._now, self._used = now, used
            if self._seconds <= 0 and not node_budget().is_training():
                self._seconds = BURST_SECONDS
            return self._seconds > 0
