"""The Celery task that has the node start waiting background tasks. A message is only a notification."""

from app.core import queue
from app.core.queue import celery
from worker.runtime import current_worker


@celery.task(name=queue.RUN_BACKGROUND_TASKS)  # type: ignore[untyped-decorator]
def run_background_tasks() -> None:
    """Start as many waiting tasks as there are free slots."""
    current_worker().tasks.start_waiting()
