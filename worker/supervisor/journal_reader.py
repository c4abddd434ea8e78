"""Reads the journal of an attempt once for both that need it: the watchdog now, the database in batches."""

from collections import deque
from pathlib import Path

from trainer import events
from trainer.events import Event

BATCH_EVENTS = 500
MAX_QUEUED_EVENTS = 20_000  # kept in memory while the database is away; the rest waits in the file


class JournalReader:
    """A queue of the events that the database does not have yet, fed from the end of a growing file."""

    def __init__(self, path: Path, max_queued: int = MAX_QUEUED_EVENTS) -> None:
        self.path = path
        self._max_queued = max_queued
        self._queue: deque[Event] = deque()
        self._read_offset = 0  # in bytes: after the last event that read_new returned
        self._queue_offset = 0  # in bytes: after the last event that was queued, less while the queue is full

    def read_new(self) -> list[Event]:
        """The events written since the last call. They are queued for the database as well."""
        new = list(events.read(self.path, self._read_offset))
        for event, offset in new:
            if self._queue_offset == self._read_offset and len(self._queue) < self._max_queued:
                self._queue.append(event)
                self._queue_offset = offset
            self._read_offset = offset
        return [event for event, _offset in new]

    def next_batch(self) -> list[Event]:
        """The oldest events in the queue, at most BATCH_EVENTS. They stay there until `drop`."""
        if not self._queue and self._queue_offset < self._read_offset:
            self._refill()
        return [self._queue[number] for number in range(min(BATCH_EVENTS, len(self._queue)))]

    def drop(self, count: int) -> None:
        """Forget the oldest events: the database has them."""
        for _ in range(count):
            self._queue.popleft()

    @property
    def is_drained(self) -> bool:
        """Whether the database has everything that was read."""
        return not self._queue and self._queue_offset == self._read_offset

    def _refill(self) -> None:
        for event, offset in events.read(self.path, self._queue_offset):
            if offset > self._read_offset or len(self._queue) == self._max_queued:
                return
            self._queue.append(event)
            self._queue_offset = offset
