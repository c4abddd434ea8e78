"""The priority of an inference process beside trainings on the same processors.

Whoever asks a new model for a text waits until it is loaded, which takes some seconds of processor time once. At the
low priority of texts, which may go on for hours, that would take minutes beside a training.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trainer.processes.session_priority import set_session_niceness

# Added to that of the worker.
LOADING_NICENESS = 5  # beside a training it gets a quarter of a processor
TEXT_NICENESS = 17  # a 45th


class Priority:
    """The priority of this process, which begins with that of loading, as do its threads and children."""

    def __init__(self) -> None:
        with suppress(PermissionError):  # it leads a session already
            os.setsid()
        self._loading_niceness = os.nice(LOADING_NICENESS)
        self._text_niceness = min(19, self._loading_niceness - LOADING_NICENESS + TEXT_NICENESS)
        self._lock = threading.Lock()
        self._num_loading = 0
        self.set_session()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """A block in which a model is loaded."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def lower(self, process_id: int = 0) -> None:
        """Give a process, or else the calling thread and those that it starts, the priority of texts."""
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process_id, self._text_niceness)

    def set_session(self) -> None:
        """Set that of the session. The kernel refuses some changes in quick succession: to be called now and then."""
        with self._lock:
            set_session_niceness(self._loading_niceness if self._num_loading else self._text_niceness)

    def _count(self, change: int) -> None:
        with self._lock:
            self._num_loading += change
        self.set_session()
