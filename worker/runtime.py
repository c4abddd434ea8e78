"""The state of a worker process."""

from functools import cache

from app.core import processes
from app.core.settings import settings
from worker.background.runner import TaskRunner
from worker.inference.client import Inference
from worker.inference.deployed_models import DeployedModels
from worker.inference.generations import GenerationRunner
from worker.node import ForkServer, NodeHeartbeat, PeriodicThread

STOP_SECONDS = 10.0  # for a supervisor to publish and record the last checkpoint, once its trainer has saved it


class Worker:
    """Everything that tasks share and that outlives them."""

    def __init__(self) -> None:
        self.fork_server = ForkServer()
        self.inference = Inference()
        self.generations = GenerationRunner(self.inference)
        self.tasks = TaskRunner()
        self._watch_fork_server = PeriodicThread(self.fork_server.watch)
        self._heartbeat = PeriodicThread(NodeHeartbeat().beat)
        self._deployed_models = PeriodicThread(DeployedModels(self.inference).update)
        self._look_for_tasks = PeriodicThread(self.tasks.start_waiting)  # notifications may be lost

    def start_fork_server(self) -> None:
        """Start the fork server and keep it alive."""
        self._watch_fork_server.start()

    def start_heartbeat(self) -> None:
        """Tell the database every few seconds that this node can take jobs; take background tasks and generations."""
        self._heartbeat.start()
        self._look_for_tasks.start()
        self._deployed_models.start()
        self.generations.start()

    def stop(self) -> None:
        """Stop the threads and the fork server. In a container, which ends with its worker, jobs save and stop too."""
        self.generations.stop()
        self._watch_fork_server.stop()
        self._look_for_tasks.stop()
        self._deployed_models.stop()
        self.tasks.stop()
        self._heartbeat.stop()
        self.fork_server.stop()
        if settings().stop_jobs:
            processes.stop_supervisors(settings().save_seconds + STOP_SECONDS)


@cache
def current_worker() -> Worker:
    """The worker of this process, built at first use."""
    return Worker()
