"""The client's side of a child process with limits that answers calls over a socket. Imports no torch."""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from trainer.data.encoding_budget import EncodingBudget
from trainer.data.record_refused import RecordRefused
from trainer.failure import Failure
from trainer.formats.messages import Message
from trainer.processes import child_limits
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits, limited_command

LIMITS = ChildLimits(
    memory_bytes=8 << 30,  # for the longest records; each call has its own, smaller limit
    file_bytes=1 << 20,  # its standard error
    niceness=0,  # people and jobs wait for it
    dies_with_parent=False,  # it ends with its connection, and may outlive the thread that started it
)
LOOK_SECONDS = 0.25  # between checks whether a call is still wanted
WAIT_FACTOR = 60  # a call may wait for its computing time so many times longer, on a busy machine
ROOT = Path(child_limits.__file__).parents[2]

IsStopped = Callable[[], bool]


class CallStopped(Exception):
    """A call was ended because nobody wants its result anymore."""


class ServerProcess:
    """A child process that runs a module of this package with a directory. Start at once, wait at use.

    Only one thread may use it at a time; others may call `stop`. The module's first frame says "failed", or that it is
    ready.
    """

    def __init__(self, module: str, directory: Path) -> None:
        self._module, self._directory = module, directory
        self.deaths: list[RecordRefused] = []  # why children died, of all processes of a pool
        self._is_ready = self._is_stopped = False
        self.number = 0  # of the child: it counts up with each start
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_ready(self) -> bool:
        """Whether the child has opened its directory."""
        return self._is_ready and not self._connection.closed

    @property
    def process_id(self) -> int:
        """The ID of the child."""
        return self._child.pid

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._end()

    def stop(self) -> None:
        """Have the call of another thread end with CallStopped, and all later ones."""
        self._is_stopped = True
        self._child.kill()

    def _receive(self, cpu_seconds: float, is_stopped: IsStopped = lambda: False) -> bytes:
        """The next frame. Raises EOFError or OSError if the child died or takes far too long, and CallStopped."""
        deadline = time.monotonic() + WAIT_FACTOR * cpu_seconds
        while not self._connection.poll(LOOK_SECONDS):
            if self._is_stopped or is_stopped():
                self._end()
                raise CallStopped
            if time.monotonic() > deadline:
                self._child.kill()
        return self._connection.recv_bytes()

    def _death(self, budget: EncodingBudget) -> RecordRefused:
        """Why the child died of a call with this budget. Raises CallStopped."""
        status = self._child.wait()
        self._stderr.seek(0)
        output = self._stderr.read().decode(errors="replace")
        self._end()
        if self._is_stopped:
            raise CallStopped
        refused = death_reason(status, output, budget)
        self.deaths.append(refused)
        return refused

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        with theirs:
            command = [sys.executable, "-m", self._module, str(theirs.fileno()), str(self._directory.resolve())]
            self._child = subprocess.Popen(
                limited_command(LIMITS, command),
                cwd=ROOT,
                env=child_environment("tokenizer"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
            )
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        self._is_ready = False
        self.number += 1

    def wait_until_ready(self, is_stopped: IsStopped = lambda: False) -> None:
        """Start a child if there is none. Raises Failure if it cannot open its directory, and CallStopped."""
        if self._is_stopped:
            raise CallStopped
        if self._connection.closed:
            self._start()
        if self._is_ready:
            return
        try:
            message = json.loads(self._receive(60.0, is_stopped))
        except (EOFError, OSError):
            status = self._child.wait()
            self._end()
            if self._is_stopped:
                raise CallStopped from None
            message = {"failed": f"the process that opens it ended with status {status}"}
        if "failed" in message:
            raise Failure("tokenizer_mismatch", found=f"unreadable: {message['failed']}", needed="one that opens")
        self._is_ready = True

    def _end(self) -> None:
        if not self._connection.closed:
            self._connection.close()
            self._child.kill()
            self._child.wait()
            self._stderr.close()


def death_reason(status: int, output: str, budget: EncodingBudget) -> RecordRefused:
    """Why a process ended while it encoded within a budget, from its exit status and standard error."""
    if status in (-signal.SIGPROF, -signal.SIGXCPU):
        return RecordRefused("time", seconds=round(budget.cpu_seconds))
    if "memory allocation" in output:  # how Rust ends a process
        return RecordRefused("memory", megabytes=budget.megabytes)
    last = output.strip().rpartition("\n")[2]
    return RecordRefused("crash", why=" ".join(last.split())[:200] or f"status {status}")


def refusal(message: dict[str, Any]) -> RecordRefused:
    """A refusal as a server sends it."""
    read = Message.model_validate(message)
    return RecordRefused(read.code, **read.values)
