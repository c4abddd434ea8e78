"""A fork server for tests, which starts gangs and commands, and the supervisor's end of the sockets to gangs."""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import until
from trainer.formats import jsonlines
from trainer.launch import gang
from trainer.run_dir import RunDir

SECONDS = 400  # timeout of a run in a test


class GangConnection:
    """The supervisor's end of the socket to a gang, whose first message names its process."""

    def __init__(self, conn: socket.socket) -> None:
        self.conn = conn
        self.conn.settimeout(SECONDS)
        hello = self.read()
        self.process = psutil.Process(hello["pid"])
        assert self.process.create_time() == hello["started_at"]

    def ask(self, run_dir: RunDir, num_processes: int = 1, **env: str) -> "GangConnection":
        """Send the request to run an attempt on a CPU."""
        self.send(run_dir=str(run_dir.path), fence=1, num_processes=num_processes, device="cpu", env=env)
        return self

    def send(self, **message: Any) -> None:
        jsonlines.send(self.conn, message)

    def read(self) -> dict[str, Any]:
        """The next message of the gang."""
        message = jsonlines.receive(self.conn)
        assert message is not None, "the gang closed the socket"
        return message

    def rest(self) -> list[dict[str, Any]]:
        """All messages up to the last one, which has the exit code."""
        messages = [self.read()]
        while "done" not in messages[-1]:
            messages.append(self.read())
        return messages

    def done(self) -> int:
        """The exit code of the attempt."""
        code: int = self.rest()[-1]["done"]
        return code

    def close(self) -> None:
        self.conn.close()


class Command:
    """A forked process that does what `python -m` with its arguments does, without the seconds of imports."""

    def __init__(self, control: socket.socket, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self._arguments = arguments
        self._ends, theirs = socket.socketpair()
        self._ends.settimeout(SECONDS)
        self._outputs = [tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")]  # noqa: SIM115 - result closes them
        request = json.dumps({"arguments": arguments, "env": env}).encode()
        socket.send_fds(control, [request], [theirs.fileno(), *(file.fileno() for file in self._outputs)])
        theirs.close()

    def result(self) -> subprocess.CompletedProcess[str]:
        """Its exit code and what it wrote, once it has ended."""
        with self._ends, self._outputs[0] as output, self._outputs[1] as errors:
            code = int(self._ends.recv(10) or -1)  # nothing from one that was killed
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(self._arguments, code, output.read(), errors.read())


class GangForkServer:
    """A process that has imported torch, transformers and DeepSpeed, from which gangs and commands are forked."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", "tests.trainer.gangs", str(theirs.fileno())]
        self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        theirs.close()

    def start(self, peer_grace_seconds: float = gang.PEER_GRACE_SECONDS) -> GangConnection:
        """Fork a gang, which waits for a request."""
        ours, theirs = socket.socketpair()
        request = json.dumps({"peer_grace_seconds": peer_grace_seconds}).encode()
        socket.send_fds(self._control, [request], [theirs.fileno()])
        theirs.close()
        return GangConnection(ours)

    def run(self, run_dir: RunDir, num_processes: int = 1, **env: str) -> int:
        """Run an attempt to its end and return its exit code."""
        supervisor = self.start().ask(run_dir, num_processes, **env)
        code = supervisor.done()
        supervisor.close()
        return code

    def command(self, *arguments: str, **env: str) -> Command:
        """Fork a process that does what `python -m` with these arguments does."""
        return Command(self._control, arguments, env)

    @contextmanager
    def serving_worker(self, path: Path, env: dict[str, str]) -> Iterator[None]:
        """Have a fork be the fork server of a worker at this socket (worker/fork_server.py), without its imports."""
        self.command("worker.fork_server", str(path), str(self._process.pid), **env)
        until(path.exists, SECONDS, "the socket of the fork server")
        try:
            yield
        finally:
            os.kill(listener_of(path), signal.SIGTERM)
            path.unlink()

    def close(self) -> None:
        self._control.close()
        self._process.wait(timeout=SECONDS)


def listener_of(path: Path) -> int:
    """The process that listens on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


def serve_forever(control: socket.socket) -> None:
    """Fork a gang or a command for every request received, until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that those that exited leave no zombies
    gang.preload()
    importlib.import_module("worker.inference.server")
    gc.collect()
    gc.freeze()  # as worker/fork_server.py does
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 65_536, 3)
        if not data:
            return
        request = json.loads(data)
        if os.fork() == 0:
            control.close()
            if "arguments" in request:
                os._exit(run_command(request["arguments"], request["env"], *descriptors))
            gang.PEER_GRACE_SECONDS = request["peer_grace_seconds"]
            os._exit(gang.serve(socket.socket(fileno=descriptors[0])) & 0xFF)
        for descriptor in descriptors:
            os.close(descriptor)


def run_command(arguments: list[str], env: dict[str, str], ends: int, output: int, errors: int) -> int:
    """Run a module as `python -m` does; the exit code is also written to the descriptor `ends`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.update(env)
    sys.argv = arguments
    code: Any = 0
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(ends, str(code).encode())
    return int(code)


if __name__ == "__main__":
    serve_forever(socket.socket(fileno=int(sys.argv[1])))
