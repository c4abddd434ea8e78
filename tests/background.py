"""Runs background tasks in tests as a worker does."""

import threading

from sqlalchemy import delete

from app.core import background_tasks, db
from app.core.json_shapes import TaskProgress
from app.core.models import BackgroundTask
from worker.background import runner
from worker.background.lease import Lease

NODE = "node of the tests"


def claim(progress: TaskProgress | None = None) -> BackgroundTask | None:
    """Start the next waiting task on a node without any other, and report how far it is."""
    with db.transaction() as session:
        task = background_tasks.claim(session, node=NODE, running={}, free_bytes=None)
        if task is not None and progress is not None:
            assert background_tasks.renew(session, task_id=task.id, fence=task.fence, progress=progress)
        return task


def forget_waiting() -> None:
    """Delete the unfinished tasks of earlier tests, whose turn would come first."""
    with db.transaction() as session:
        session.execute(delete(BackgroundTask).where(BackgroundTask.state.in_(background_tasks.OPEN)))


def run_waiting(is_stopping: threading.Event | None = None) -> int:
    """Run all waiting tasks one after another, in this thread; returns how many."""
    count = 0
    while (task := claim()) is not None:
        runner.run(task, Lease(task, is_stopping or threading.Event()))
        count += 1
    return count
