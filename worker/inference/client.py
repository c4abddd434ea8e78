"""The worker's client of its inference process, which it starts at first use."""

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from app.core.node_budget import node_budget
from app.core.settings import ROOT
from trainer.formats import jsonlines
from trainer.processes.child_environment import child_environment
from worker.environment import fork_server_socket

log = logging.getLogger(__name__)

END_SECONDS = 5.0
KEEP_SECONDS = 60.0


class Inference:
    """One inference process. It exits when this process does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leash: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None  # of a cold start; the kernel reaps forks of the fork server

    @contextmanager
    def writing(self, request: dict[str, Any]) -> Iterator[socket.socket]:
        """A socket from which the generated text is read as JSON lines. Leaving the block stops the generation and
        waits until it has stopped: then nothing of it is computed any longer.
        """
        connection, peer = socket.socketpair()
        with connection:
            with peer:
                self._pass(peer)
            jsonlines.send(connection, request)
            try:
                yield connection
            finally:
                _wait_until_stopped(connection)

    def keep(self, paths: Sequence[str]) -> dict[str, tuple[str, str | None, int | None]]:
        """Keep the models of these directories in memory, and no others: the state of each, why it failed, and how many
        percent of it are loaded.

        Raises OSError if the process ends meanwhile.
        """
        connection, peer = socket.socketpair()
        with connection:
            connection.settimeout(KEEP_SECONDS)
            with peer:
                self._pass(peer)
            jsonlines.send(connection, {"keep": list(paths)})
            answer = jsonlines.receive(connection)
        if answer is None:
            raise ConnectionResetError("the inference process ended")
        return {path: (state, failure, percent) for path, (state, failure, percent) in answer["states"].items()}

    def close(self) -> None:
        """End the process, which frees its memory."""
        with self._lock:
            self._drop()

    def _pass(self, peer: socket.socket) -> None:
        # The socket may be passed before the process is ready: it waits in the connection's buffer.
        with self._lock:
            if self._leash is not None:
                try:
                    socket.send_fds(self._leash, [b"+"], [peer.fileno()])
                    return
                except OSError:  # it exited after being idle for long, or died
                    self._drop()
            self._leash = _fork_from_server() or self._start_process()
            socket.send_fds(self._leash, [b"+"], [peer.fileno()])

    def _start_process(self) -> socket.socket:
        connection, peer = socket.socketpair()
        with peer:
            command = [sys.executable, "-m", "worker.inference.server", "--fd", str(peer.fileno())]
            self._child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=child_environment("trainer", **node_budget().environment()),
                pass_fds=[peer.fileno()],
                stdin=subprocess.DEVNULL,
            )
        return connection

    def _drop(self) -> None:
        if self._leash is not None:
            self._leash.close()
            self._leash = None
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(END_SECONDS)
            self._child = None


def _wait_until_stopped(connection: socket.socket) -> None:
    """Tell the peer that nobody reads on, and wait until it closes its end, or its process dies."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


def _fork_from_server() -> socket.socket | None:
    """A connection to a new fork of the fork server; None if there is no fork server."""
    leash = socket.socket(socket.AF_UNIX)
    leash.settimeout(2)
    try:
        leash.connect(str(fork_server_socket()))
        jsonlines.send(leash, {"serve": "inference"})
    except OSError as error:
        log.info("no fork server (%s), the inference process starts cold", error)
        leash.close()
        return None
    leash.settimeout(None)
    return leash
