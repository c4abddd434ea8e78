"""The queue: jobs that wait for a place."""

from collections.abc import Iterator
from datetime import datetime

from .job_shapes import BlockingJobInfo, WaitInfo
from .shapes import Shape
from .transport import Transport, address


class QueuedJobInfo(Shape):
    """A job in the queue; `position` 1 is next. `id`, `name` and `owner` are None for a job that you may not see."""

    position: int
    id: str | None
    name: str | None
    owner: str | None
    is_own: bool
    is_readable: bool
    queued_at: datetime
    expected_start_at: datetime | None
    blocking_job: BlockingJobInfo | None
    wait: WaitInfo | None


class Queue:
    """Everybody's jobs that wait for a place, in the order in which they get one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[QueuedJobInfo]:
        """The waiting jobs, the next one first: the first thousand."""
        return self._transport.pages(QueuedJobInfo, "/queue")

    def move(self, job_id: str, *, before: str | None = None, after: str | None = None) -> QueuedJobInfo:
        """Move a job directly before or after another one of yours; admins and owners, before or after any.

        Your jobs exchange their places, so that no job of another user is passed.
        """
        body = {"before": before, "after": after}
        return self._transport.post(QueuedJobInfo, address("jobs", job_id, "move"), body)
