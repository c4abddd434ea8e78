"""The supervisor's hold on its gang: started warm or cold, heard, signalled, and in the end really gone.

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
from trainer import jsonlines
from worker.environment import child_environment, gpu_lock, warm_socket

log = logging.getLogger(__name__)

HELLO_SECONDS = 60.0  # a cold gang has Python to start, on a machine that may be busy


class GangClient:
    """The processes of one attempt. `done` is their exit code, once they have one."""

    def __init__(self, connection: socket.socket, child: subprocess.Popen[bytes] | None) -> None:
        self._connection = connection
        self._child = child
        self._reports = jsonlines.LineSplitter()
        hello = self._receive_hello()
        self.pid: int = hello["pid"]
        self._started_at: float = hello["started_at"]
        self.exits: dict[int, int] = {}  # of each rank: its code, or minus its signal
        self.done: int | None = None
        self.is_lost = False  # the connection ended without an exit code
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
        """Say what to run."""
        locks = [str(gpu_lock(uuid)) for uuid in gpus]
        self._send(run_dir=str(run_dir), fence=fence, num_processes=num_processes, device=device, env=env, locks=locks)

    def poll(self) -> None:
        """Hear what it said since the last look, without waiting."""
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
        """Whether it said how it ended, or can say nothing more."""
        return self.done is not None or self.is_lost

    def terminate(self) -> None:
        """Ask every process to write a checkpoint and end."""
        self._send(signal="TERM")

    def kill(self) -> None:
        """End every process of the group, now."""
        for process in self._alive():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def dump_stacks(self) -> None:
        """Have every process write its stacks into the log. One that was stopped is woken for it."""
        for number in (signal.SIGUSR1, signal.SIGCONT):
            for process in self._alive():
                with suppress(psutil.Error):
                    process.send_signal(number)

    def is_gone(self) -> bool:
        """Whether no process of the group is left."""
        if self._child is not None:
            self._child.poll()  # reaps it
        return not self._alive()

    def close(self) -> None:
        """Let go of it. If it still runs, it stops."""
        self._connection.close()

    def _send(self, **message: Any) -> None:
        with suppress(OSError):  # it is gone: `look` will notice
            jsonlines.send(self._connection, message)

    def _receive_hello(self) -> jsonlines.Message:
        self._connection.settimeout(HELLO_SECONDS)
        hello = jsonlines.receive(self._connection)
        if hello is None:
            raise ConnectionError("the gang ended before it said its process id")
        return hello

    def _alive(self) -> list[psutil.Process]:
        """The living processes of its session. It leads one, so its number names the session until the last has gone.

        Anything older than the gang is a stranger who has got the number anew.
        """
        alive = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError, PermissionError):
                is_member = os.getsid(process.pid) == self.pid and process.create_time() >= self._started_at - 0.1
                if is_member and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive


def start() -> GangClient:
    """A gang that waits to be told what to run: a fork of the warm parent, or where there is none a new process."""
    with suppress(OSError):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(warm_socket()))
        jsonlines.send(connection, {"serve": "gang"})
        return GangClient(connection, None)
    log.info("no warm parent, the gang starts cold")
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
