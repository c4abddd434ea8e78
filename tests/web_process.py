"""The application in a process of its own, which can be killed and started again on the same port."""

import multiprocessing
import os
import socket
from multiprocessing.process import BaseProcess

import uvicorn

from app.main import create_app
from tests.waiting import until

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.web_process"])


def serve(port: int, environment: dict[str, str]) -> None:
    """Serve it, with these settings."""
    os.environ.update(environment)

    uvicorn.run(create_app(), port=port, log_level="warning")


class WebProcess:
    """A web process on a port that stays the same."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        names = ("DATABASE_URL", "REDIS_URL", "ATHANOR_DATA")
        self._process = CONTEXT.Process(target=serve, args=(self.port, {name: os.environ[name] for name in names}))
        self._process.start()
        until(self._accepts, what="the web process", seconds=120)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.join()

    def restart(self) -> None:
        """Kill it and start another one."""
        self.kill()
        self.start()
