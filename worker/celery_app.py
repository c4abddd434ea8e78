"""The Celery application of a worker: `celery -A worker.celery_app worker`. Imports every task.

Only this module connects Celery's signals, so that a worker inside a test starts neither fork server nor heartbeat.
"""

from typing import Any

from celery.signals import worker_init, worker_ready, worker_shutdown

from app.core.queue import celery as app
from worker.runtime import current_worker
from worker.tasks import run_background_tasks, start_job

__all__ = ["app", "run_background_tasks", "start_job"]


@worker_init.connect  # type: ignore[untyped-decorator]
def _on_worker_init(**_signal: Any) -> None:
    current_worker().start_fork_server()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _on_worker_ready(**_signal: Any) -> None:
    current_worker().start_heartbeat()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _on_worker_shutdown(**_signal: Any) -> None:
    current_worker().stop()
