"""The application in a process of its own, which can be killed and started again on the same port."""

import socket
import subprocess
import sys

import uvicorn

from app.main import create_app


class WebProcess:
    """A web process. Connections that arrive while there is none wait for the next one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with the settings of this process."""
        listener = self._listener.fileno()
        self._process = subprocess.Popen([sys.executable, "-m", __name__, str(listener)], pass_fds=[listener])

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


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(create_app(), log_level="warning")).run([socket.socket(fileno=int(sys.argv[1]))])
