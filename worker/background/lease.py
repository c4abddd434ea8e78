"""The right to work on a background task, renewed every second while its process runs."""

import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.orm import Session

from app.core import background_tasks, db, disk
from app.core.json_shapes import TaskProgress
from app.core.models import BackgroundTask
from app.core.settings import settings
from trainer.formats.jsonlines import Message

KEEP_SECONDS = 1.0
OUTAGE = (DBAPIError, TimeoutError)


class TaskLost(Exception):
    """A task was cancelled, deleted or started again while its result was stored, or the worker stops."""


class DiskFilledUp(Exception):
    """The disk became full while a result was stored."""


def is_outage(error: BaseException) -> bool:
    """Whether an exception says that the database cannot be reached."""
    return isinstance(error, TimeoutError) or (isinstance(error, DBAPIError) and db.is_outage(error))


class Lease:
    """Of one start of a task. In an outage of the database it ends by itself, as another worker may then start it."""

    def __init__(self, task: BackgroundTask, is_stopping: threading.Event, *, writes_user_data: bool = True) -> None:
        self._task = task
        self._writes_user_data = writes_user_data
        self._is_stopping = is_stopping
        self._valid_until = time.monotonic() + settings().lease_seconds
        self._next_renewal = 0.0
        self._phase: str | None = None
        self._phase_started_at = time.monotonic()
        self._are_inputs_there: Callable[[Session], bool] | None = None
        self.is_over = False
        self.is_outage = False  # it ended as the database could not be reached
        self.is_disk_full = False

    def need(self, are_inputs_there: Callable[[Session], bool]) -> None:
        """Have the process end, too, once what the task reads is deleted or read again."""
        self._are_inputs_there = are_inputs_there

    def renew(self, progress: Message | None, phase: str | None = None) -> bool:
        """Renew it and record the progress of a phase. Returns False if the process must end.

        So it must if it writes user data and the disk is full: of files that libraries write, no one else counts the
        bytes.
        """
        if phase != self._phase:
            self._phase, self._phase_started_at = phase, time.monotonic()
        self.is_over = self._is_stopping.is_set() or not self._renewed(progress)
        self.is_disk_full = self._writes_user_data and disk.is_full()
        return not self.is_over and not self.is_disk_full and not self._has_lost_inputs()

    def keep(self) -> None:
        """Renew it while a result is stored, once a second at most. Raises TaskLost and DiskFilledUp."""
        if time.monotonic() < self._next_renewal:
            return
        self._next_renewal = time.monotonic() + KEEP_SECONDS
        if not self.renew(None):
            raise DiskFilledUp if self.is_disk_full and not self.is_over else TaskLost

    def _has_lost_inputs(self) -> bool:
        if self._are_inputs_there is None:
            return False
        try:
            with db.transaction() as session:
                return not self._are_inputs_there(session)
        except OUTAGE as error:
            if not is_outage(error):
                raise
            return False

    def _renewed(self, progress: Message | None) -> bool:
        now = time.monotonic()
        seconds = round(now - self._phase_started_at, 3)
        record = None if progress is None else TaskProgress(phase=self._phase, seconds=seconds, **progress)
        try:
            with db.transaction() as session:
                task = self._task
                is_current = background_tasks.renew(session, task_id=task.id, fence=task.fence, progress=record)
        except OUTAGE as error:
            if not is_outage(error):
                raise
            self.is_outage = not self.is_valid()
            return not self.is_outage
        self._valid_until = now + settings().lease_seconds
        return is_current

    def is_valid(self) -> bool:
        """Whether no other worker may have started the task since."""
        return time.monotonic() < self._valid_until
