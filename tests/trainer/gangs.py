"""Gangs for tests: a fork server that starts one for each run, and the supervisor's end of their sockets."""

import gc
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import psutil

from trainer import jsonlines
from trainer.launch import gang
from trainer.run_dir import RunDir

SECONDS = 120  # timeout of a run in a test


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


class GangForkServer:
    """A process that has imported torch, transformers and DeepSpeed, from which gangs are forked."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        argv = [sys.executable, "-m", "tests.trainer.gangs", str(theirs.fileno())]
        self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        theirs.close()

    def start(self) -> GangConnection:
        """Fork a gang, which waits for a request."""
        ours, theirs = socket.socketpair()
        socket.send_fds(self._control, [b"."], [theirs.fileno()])
        theirs.close()
        return GangConnection(ours)

    def run(self, run_dir: RunDir, num_processes: int = 1, **env: str) -> int:
        """Run an attempt to its end and return its exit code."""
        supervisor = self.start().ask(run_dir, num_processes, **env)
        code = supervisor.done()
        supervisor.close()
        return code

    def close(self) -> None:
        self._control.close()
        self._process.wait(timeout=SECONDS)


def serve_forever(control: socket.socket) -> None:
    """Fork a gang for every socket received, until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that exited gangs leave no zombies
    gang.preload()
    gc.collect()
    gc.freeze()  # as worker/fork_server.py does
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            os._exit(gang.serve(socket.socket(fileno=descriptors[0])) & 0xFF)
        os.close(descriptors[0])


if __name__ == "__main__":
    serve_forever(socket.socket(fileno=int(sys.argv[1])))
