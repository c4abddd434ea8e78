"""Runs a sandboxed child process that reports its progress and its result as JSON lines on standard output."""

import fcntl
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.core.settings import ROOT
from trainer.events import EXIT_OUT_OF_MEMORY
from trainer.formats.jsonlines import LineSplitter, Message
from trainer.processes import cgroups
from trainer.processes.child_limits import ChildLimits, grouped, limited_command

HEARTBEAT_SECONDS = 1.0

# Called at the start and then every second with the newest progress report; the child is killed if it returns False.
Heartbeat = Callable[[Message | None], bool]


class DirectoryInUse(Exception):
    """Another process works on the directory, such as one that an earlier worker left behind."""


@contextmanager
def lock(directory: Path) -> Iterator[int]:
    """Lock a directory, which is created, and yield the descriptor that holds the lock. Raises DirectoryInUse.

    A child that inherits the descriptor holds the lock, too, until it dies.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryInUse(directory) from None
        yield file.fileno()


def run_sandboxed(
    command: list[str],
    env: dict[str, str],
    heartbeat: Heartbeat,
    *,
    limits: ChildLimits,
    directory: Path,
    stderr: Path | None = None,
) -> tuple[Message, int]:
    """Run a child under limits in its own session until its closing report, then kill all processes of the session.

    The child holds the lock of the directory that it writes to. Not this process: suspended, it would keep the lock
    after the child has died. Raises DirectoryInUse.

    Progress reports have the keys "done" and "total"; any other JSON object is the closing report. Returns the closing
    report, or {} if there was none, and the exit status, negative for a signal, and EXIT_OUT_OF_MEMORY if the kernel
    killed it for the memory of its control group. `env` is the complete environment of the child; its standard error
    goes to the file `stderr`, or to that of this process.
    """
    limits = grouped(limits)
    with lock(directory) as descriptor, (stderr or Path(os.devnull)).open("wb") as log:
        child = subprocess.Popen(
            limited_command(limits, command),
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log if stderr is not None else None,
            start_new_session=True,
            pass_fds=[descriptor],
        )
    with child:
        try:
            closing = _read_reports(child, heartbeat)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    was_killed = child.returncode == -signal.SIGKILL and cgroups.has_exceeded_memory(limits.group)
    return closing, EXIT_OUT_OF_MEMORY if was_killed else child.returncode


def is_out_of_memory(status: int) -> bool:
    """Whether this is the exit status of a child that had too little memory. Libraries in Rust and C++ abort then."""
    return status in (-signal.SIGABRT, EXIT_OUT_OF_MEMORY)


def _read_reports(child: subprocess.Popen[bytes], heartbeat: Heartbeat) -> Message:
    assert child.stdout is not None
    splitter = LineSplitter()
    progress: Message | None = None
    next_beat = 0.0
    while True:
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + HEARTBEAT_SECONDS
            if not heartbeat(progress):
                return {}
        is_readable = bool(select.select([child.stdout], [], [], max(0.0, next_beat - time.monotonic()))[0])
        data = os.read(child.stdout.fileno(), 1 << 16) if is_readable else None
        if data == b"":
            return {}
        for line in splitter.lines(data or b""):
            message = _parse_report(line)
            if "done" in message:
                progress = message
            elif message:
                return message


def _parse_report(line: bytes) -> Message:
    """The report in a line, or {} for other output, such as that of a library in the child."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
