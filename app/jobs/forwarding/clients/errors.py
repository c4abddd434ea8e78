"""What the clients of trackers raise beside the errors of their libraries."""

from typing import Any


class TrackerError(Exception):
    """A tracker did not take a batch: a code of app/jobs/forwarding/tracker_errors.py, and its values."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.code, self.values = code, values


class LostRows(TrackerError):
    """A tracker does not have rows any more that it took: the job must be sent from its start."""
