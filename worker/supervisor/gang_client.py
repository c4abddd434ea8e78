"""The supervisor's end of its gang: starts it, reads its reports, signals it, and makes sure it is gone.

The protocol is that of trainer/launch/gang.py.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import psutil

from app.core.settings import ROOT
from trainer.formats import jsonlines
from trainer.processes.child_environment import child_environment
from worker.environment import fork_server_socket, gpu_lock

log = logging.getLogger(__name__)

HELLO_SECONDS = 60.0  # a cold start has to import Python modules, perhaps on a busy machine


class GangClient:
    """The processes of one attempt. `done` is their common exit code, None while they run."""

    def __init__(self, connection: socket.socket, child: subprocess.Popen[bytes] | None) -> None:
        self._connection = connection
        self._child = child
        self._reports = jsonlines.LineSplitter()
        hello = self._receive_hello()
        self.pid: int = hello["pid"]
        self._started_at: float = hello["started_at"]
        self.exits: dict[int, int] = {}  # by rank: exit code, or the negative signal number
        self.done: int | None = None
        self.is_lost = False  # the connection closed before an exit code arrived
        connection.setblocking(False)

    def run(
        self,
        run_dir: Path,
        fence: int,
        num_processes: int,
        device: Literal["cpu", "cuda"],
        gpus: Sequence[str],
        env: dict[str, str],
    ) -> None:
        """Send the request: what to run."""
        locks = [str(gpu_lock(uuid)) for uuid in gpus]
        self._send(run_dir=str(run_dir), fence=fence, num_processes=num_processes, device=device, env=env, locks=locks)

    def poll(self) -> None:
        """Process the messages that have arrived, without waiting."""
        while self.done is None and not self.is_lost:
            try:
                data = self._connection.recv(65_536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.is_lost = True
            for message in self._reports.messages(data):
                self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        if "rank" in message:
            self.exits[message["rank"]] = message["exit"]
        if "done" in message:
            self.done = message["done"]

    @property
    def is_finished(self) -> bool:
        """Whether it reported an exit code or its connection is lost."""
        return self.done is not None or self.is_lost

    def terminate(self) -> None:
        """Ask every process to write a checkpoint and exit."""
        self._send(signal="TERM")

    def kill(self) -> None:
        """Kill every process of the session with SIGKILL."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def dump_stacks(self) -> None:
        """Make every process write its stacks to the log; stopped ones are continued for it."""
        for number in (signal.SIGUSR1, signal.SIGCONT):
            for process in self.processes():
                with suppress(psutil.Error):
                    process.send_signal(number)

    def is_gone(self) -> bool:
        """Whether no process of the session is left."""
        if self._child is not None:
            self._child.poll()  # reaps it
        return not self.processes()

    def processes(self) -> list[psutil.Process]:
        """The living processes of its session. The gang leads it, so its pid identifies the session to the end.

        A process older than the gang is unrelated: the pid was reused.
        """
        alive = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError, PermissionError):
                is_member = os.getsid(process.pid) == self.pid and process.create_time() >= self._started_at - 0.1
                if is_member and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive

    def close(self) -> None:
        """Close the connection. Processes that still run stop then."""
        self._connection.close()

    def _send(self, **message: Any) -> None:
        with suppress(OSError):  # it is gone, which `poll` will notice
            jsonlines.send(self._connection, message)

    def _receive_hello(self) -> jsonlines.Message:
        self._connection.settimeout(HELLO_SECONDS)
        hello = jsonlines.receive(self._connection)
        if hello is None:
            raise ConnectionError("the gang ended before it said its process id")
        return hello


def start() -> GangClient:
    """Start a gang that waits for its request: a fork of the fork server, or without one a new process."""
    with suppress(OSError):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(fork_server_socket()))
        jsonlines.send(connection, {"serve": "gang"})
        return GangClient(connection, None)
    log.info("no fork server, the gang starts cold")
    connection, peer = socket.socketpair()
    with peer:
        command = [sys.executable, "-m", "trainer", "gang", "--fd", str(peer.fileno())]
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=child_environment("trainer"),
            stdin=subprocess.DEVNULL,
            pass_fds=[peer.fileno()],
            start_new_session=True,
        )
    return GangClient(connection, child)
