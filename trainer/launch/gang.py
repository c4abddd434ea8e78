"""Runs the processes of one attempt: forks them, stops them together and reports their exits to a supervisor.

Gang and supervisor exchange JSON lines over a stream socket:

    gang        {"pid", "started_at"}                                     the process to watch
    supervisor  {"run_dir", "fence", "num_processes", "device", "env", "locks"}    what to run
    supervisor  {"signal": "TERM" | "KILL"}                               forwarded to every process
    gang        {"rank", "exit"}                                          exit code or negative signal of a rank, unless
                                                                          it was stopped because of another one
    gang        {"done"}                                                  exit code of the attempt; the last message

SIGUSR1 makes a process write its stack traces to the log, even while it holds the interpreter lock.

A closed socket means that the supervisor died: the processes get SIGTERM, and SIGKILL after a grace period. If the gang
dies, the kernel sends them SIGTERM.
"""

import contextlib
import faulthandler
import fcntl
import importlib
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal

import psutil
from pydantic import BaseModel

from trainer.events import EXIT_BUG, EXIT_BUSY, EXIT_OK, EXIT_PEER_LOST, EXIT_RESUMABLE
from trainer.formats import jsonlines
from trainer.launch import process
from trainer.launch.environment import free_port, set_rank_environment
from trainer.processes.child_environment import TORCH_IMPORT_ENVIRONMENT
from trainer.processes.parent_death import signal_on_parent_death
from trainer.run_dir import RunDir

PEER_GRACE_SECONDS = 10.0  # for ranks whose peer died
ORPHAN_GRACE_SECONDS = 60.0  # for processes whose supervisor died, to write a checkpoint
LOCK_SECONDS = 20.0  # how long to wait for processes of an earlier attempt to release a GPU
LOCK_POLL_SECONDS = 0.1


class Request(BaseModel):
    """What to run. `env` is set in every process; without OMP_NUM_THREADS in it, ranks share the cores evenly.

    `locks` are paths of lock files, one for each GPU, which are locked until the last process has exited.
    """

    run_dir: str
    fence: int
    num_processes: int
    device: Literal["cpu", "cuda"]
    env: dict[str, str] = {}
    locks: list[str] = []


def preload() -> None:
    """Import what a rank needs, which takes seconds. Starts no threads and uses no GPU, so forking stays safe."""
    os.environ.update(TORCH_IMPORT_ENVIRONMENT)
    importlib.import_module("trainer.launch.rank")
    # Compiles 869 patterns, a quarter of a second, which the first save or load of a model in each fork would repeat.
    importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("")
    importlib.import_module("transformers.models.llama.modeling_llama")  # which each fork of most runs would import


def serve(conn: socket.socket) -> int:
    """Run the attempt that the supervisor at the other end of the socket requests. Returns its exit code."""
    with contextlib.suppress(PermissionError):  # leads a session already
        os.setsid()
    gang = Gang(conn)
    gang.send(pid=os.getpid(), started_at=psutil.Process().create_time())
    request = gang.receive_request()
    if request is None:
        return EXIT_OK
    os.environ.update(request.env)
    run_dir = RunDir(request.run_dir)
    _append_output_to(run_dir)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if not lock_files(request.locks):
        print("another process still holds the GPU", flush=True)  # noqa: T201 - this is the log
        gang.send(done=EXIT_BUSY)
        return EXIT_BUSY

    gang.start(0, lambda: process.prepare(run_dir, request.fence))
    preload()  # meanwhile; a no-op if this process was forked from one that did it
    code = gang.wait(is_reported=False)
    if code == EXIT_OK and gang.is_stopping:
        code = EXIT_RESUMABLE  # asked to stop after preparation was complete
    if code == EXIT_OK:
        os.environ["MASTER_PORT"] = str(free_port())
        for rank in range(request.num_processes):
            gang.start(rank, lambda rank=rank: _run_rank(rank, run_dir, request))  # type: ignore[misc]
        code = gang.wait(is_reported=True)
    gang.send(done=code)
    return code


def lock_files(paths: list[str]) -> bool:
    """Lock files, waiting up to LOCK_SECONDS. Returns whether all are locked.

    The descriptors stay open and children inherit them, so the kernel releases the locks when the last process exits.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    for path in paths:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(LOCK_POLL_SECONDS)
    return True


class Gang:
    """The child processes of an attempt and the socket to the supervisor."""

    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn
        self._commands = jsonlines.LineSplitter()
        self._ranks: dict[int, int] = {}  # by process id
        self.is_stopping = False
        self._kill_at: float | None = None
        # SIGCHLD wakes the selector through this pair.
        self._wakeup, self._signals = socket.socketpair()
        for end in (self._wakeup, self._signals):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._conn, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def send(self, **message: Any) -> None:
        """Send a message to the supervisor; does nothing if it is dead."""
        with contextlib.suppress(OSError):
            jsonlines.send(self._conn, message)

    def receive_request(self) -> Request | None:
        """Wait for the request. None if the supervisor disconnected or sent a signal instead."""
        message = jsonlines.receive(self._conn)
        return Request.model_validate(message) if message is not None and "run_dir" in message else None

    def start(self, rank: int, work: Callable[[], int]) -> None:
        """Fork a child that runs `work` and exits with the code it returns.

        SIGTERM is blocked in the child until `work` can handle it (see process.StopRequest).
        """
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            self._run_in_child(parent, work)
        self._ranks[pid] = rank
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def _run_in_child(self, parent: int, work: Callable[[], int]) -> None:
        code = EXIT_BUG
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with_parent(parent)
            self._selector.close()
            self._conn.close()
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, *, is_reported: bool) -> int:
        """Wait for all children. Returns their common exit code: that of the first one that failed on its own."""
        codes, causes = [], []
        while True:
            ended = self._reap()
            for rank, code in ended:
                codes.append(code)
                if self._kill_at is not None:
                    continue  # it was stopped because of another one
                if code not in (EXIT_OK, EXIT_RESUMABLE):
                    causes.append(code)
                if is_reported:
                    self.send(rank=rank, exit=code)
            if causes and ended:
                self._stop(PEER_GRACE_SECONDS)
            if not self._ranks:
                break
            self._wait_for_event()
        own = [code for code in causes if code != EXIT_PEER_LOST]
        return (own or causes or [max(codes)])[0]

    def _reap(self) -> list[tuple[int, int]]:
        ended = []
        for pid in list(self._ranks):
            exited, status = os.waitpid(pid, os.WNOHANG)
            if exited:
                ended.append((self._ranks.pop(pid), os.waitstatus_to_exitcode(status)))
        return ended

    def _wait_for_event(self) -> None:
        """Wait until a child exits, the supervisor sends something, or a grace period is over."""
        timeout = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wakeup:
                self._wakeup.recv(4096)
            else:
                self._receive()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal(signal.SIGKILL)
            self._kill_at = None

    def _receive(self) -> None:
        try:
            data = self._conn.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(self._conn)
            self._stop(ORPHAN_GRACE_SECONDS)
            return
        for command in self._commands.messages(data):
            self._signal(signal.SIGKILL if command["signal"] == "KILL" else signal.SIGTERM)

    def _stop(self, grace: float) -> None:
        """Send SIGTERM to all children, and SIGKILL after `grace` seconds."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + grace
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to every child; SIGTERM only once, as a second one ends it without a checkpoint."""
        if number == signal.SIGTERM:
            if self.is_stopping:
                return
            self.is_stopping = True
        for pid in self._ranks:
            os.kill(pid, number)  # not reaped yet, so the pid cannot have been reused


def _append_output_to(run_dir: RunDir) -> None:
    descriptor = os.open(run_dir.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _die_with_parent(parent: int) -> None:
    """Get SIGTERM when the parent dies, or exit now if it already did."""
    signal_on_parent_death(signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(EXIT_RESUMABLE)


def _run_rank(rank: int, run_dir: RunDir, request: Request) -> int:
    set_rank_environment(rank, request.num_processes)
    run = importlib.import_module("trainer.launch.rank").run
    return int(run(run_dir, request.fence, request.device, is_supervised=True))
