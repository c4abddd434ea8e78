"""The application on a real socket: in a thread of this process, or in a process of its own that can be killed."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from app.main import create_app
from tests.waiting import until

ROOT = Path(__file__).parents[1]


@contextmanager
def running() -> Iterator[str]:
    """Serve it in a thread inside the block; yields its address."""
    configuration = uvicorn.Config(create_app(), port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(configuration)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, what="the web server")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


class WebProcess:
    """`athanor web` with the settings of this process. Connections that arrive while there is none wait for one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start it; answers its process ID."""
        listener = self._listener.fileno()
        command = [sys.executable, "-m", "app.launcher.cli", "web", "--fd", str(listener)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ, pass_fds=[listener], stderr=subprocess.DEVNULL
        )
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill it and start another one."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Kill it and release the port."""
        self.kill()
        self._listener.close()
