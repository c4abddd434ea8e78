"""The state of a worker process, and the Celery signals that start and stop it."""

import threading
from functools import cache
from typing import Any

from celery.signals import worker_init, worker_ready, worker_shutdown

from app.core import processes
from app.core.settings import settings
from worker.inference.client import Inference
from worker.node import ForkServer, NodeHeartbeat, PeriodicThread

STOP_SECONDS = 10.0  # for a supervisor to publish and record the last checkpoint, once its trainer has saved it


class Worker:
    """Everything that tasks share and that outlives them."""

    def __init__(self) -> None:
        self.fork_server = ForkServer()
        self.inference = Inference()
        self.generation_slots = threading.BoundedSemaphore(settings().generation_slots)
        self._watch_fork_server = PeriodicThread(self.fork_server.watch)
        self._heartbeat = PeriodicThread(NodeHeartbeat().beat)

    def start_fork_server(self) -> None:
        """Start the fork server and keep it alive."""
        self._watch_fork_server.start()

    def start_heartbeat(self) -> None:
        """Tell the database every few seconds that this node can take jobs."""
        self._heartbeat.start()

    def stop(self) -> None:
        """Stop the threads and the fork server. In a container, which ends with its worker, jobs save and stop too."""
        self._watch_fork_server.stop()
        self._heartbeat.stop()
        self.fork_server.stop()
        if settings().stop_jobs:
            processes.stop_supervisors(settings().save_seconds + STOP_SECONDS)


@cache
def current_worker() -> Worker:
    """The worker of this process, built at first use."""
    return Worker()


@worker_init.connect  # type: ignore[untyped-decorator]
def _on_worker_init(**_signal: Any) -> None:
    current_worker().start_fork_server()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _on_worker_ready(**_signal: Any) -> None:
    current_worker().start_heartbeat()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _on_worker_shutdown(**_signal: Any) -> None:
    current_worker().stop()
