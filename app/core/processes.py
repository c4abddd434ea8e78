"""Processes that `athanor up` runs and restarts, each in its own session with a log file, and pid files for all."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from app.core.settings import ROOT, run_directory

MAX_LOG_BYTES = 20 * 2**20
MAX_LINES = 20  # of a log that are printed at once
MAX_LINE_BYTES = 500
WORKER_SECRETS = ("HF_TOKEN",)
WEB_SECRETS = ("ATHANOR_OIDC_CLIENT_SECRET",)
SCHEDULER_SECRETS = tuple(
    f"ATHANOR_{name}" for name in ("MLFLOW_PASSWORD", "MLFLOW_TOKEN", "WANDB_API_KEY", "SWANLAB_API_KEY")
)
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0  # a process that ran this long restarts without a pause
_NOTABLE = re.compile(rb"\b(WARNING|ERROR|CRITICAL|Traceback|\w+Error:)")


class ManagedProcess:
    """A process that is restarted when it ends."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.command = command
        self.log = log
        self._env = env
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = 0.0
        self._started_at = 0.0
        self._start_at: float | None = None
        self._seen = 0

    def start(self) -> None:
        """Start the process."""
        rotate(self.log)
        self._seen = self.log.stat().st_size if self.log.exists() else 0
        self._spawn()

    def restart_if_dead(self) -> str | None:
        """Restart the process if it has died, after a growing pause. Returns how it ended, once per death."""
        assert self._process is not None
        now = time.monotonic()
        if self._start_at is not None:
            if now >= self._start_at:
                self._start_at = None
                self._spawn()
            return None
        if self._process.poll() is None:
            return None
        lived = now - self._started_at
        self._pause = 0.0 if lived > _STEADY_SECONDS else min(_LONGEST_PAUSE, max(1.0, 2 * self._pause))
        self._start_at = now + self._pause
        return ending(self._process.returncode)

    @property
    def pause(self) -> float:
        """Seconds before the next restart."""
        return self._pause

    def new_log_lines(self) -> list[str]:
        """Warnings and errors that were added to its log since the last call: few and short. Rotates a large log."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(self._seen)
            text = file.read(2**20)
        complete = text[: text.rfind(b"\n") + 1] if len(text) < 2**20 else text
        self._seen += len(complete)
        if rotate(self.log):
            self._seen = 0
        lines = [line for line in complete.splitlines() if _NOTABLE.search(line)]
        more = [f"[{len(lines) - MAX_LINES} more: {self.log}]"] if len(lines) > MAX_LINES else []
        return [line[:MAX_LINE_BYTES].decode(errors="replace") for line in lines[:MAX_LINES]] + more

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.alive():
            assert self._process is not None
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.alive():
            assert self._process is not None
            self._process.kill()

    def alive(self) -> bool:
        """Whether the process is running."""
        alive = self._process is not None and self._process.poll() is None
        if not alive:
            self._pid_file.unlink(missing_ok=True)
        return alive

    @property
    def _pid_file(self) -> Path:
        return run_directory() / f"{self.name}.pid"

    def _spawn(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=self._pass_fds,
            )
        self._started_at = time.monotonic()
        write_pid(self._pid_file, self._process.pid)


def environment_without_secrets(needed: Sequence[str] = ()) -> dict[str, str]:
    """The environment of this process without what only one kind of process needs, but for those `needed`."""
    withheld = {*WORKER_SECRETS, *WEB_SECRETS, *SCHEDULER_SECRETS} - set(needed)
    return {name: value for name, value in os.environ.items() if name.upper() not in withheld}


def ending(code: int) -> str:
    """How a process ended, as text: its exit code, or the name of the signal that killed it (a negative code)."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def rotate(log: Path) -> bool:
    """Move the text of a large log to a second file, replacing that of before. Returns whether it was large.

    The log stays the same file, so that a running process, which appends to it, continues there.
    """
    if not log.exists() or log.stat().st_size <= MAX_LOG_BYTES:
        return False
    shutil.copyfile(log, log.with_suffix(".log.1"))
    os.truncate(log, 0)
    return True


def write_pid(path: Path, pid: int) -> None:
    """Write a pid file: the process ID and the start time, which distinguishes a reused ID."""
    with suppress(psutil.NoSuchProcess):
        path.write_text(f"{pid} {psutil.Process(pid).create_time():.2f}\n")


def from_pid_file(path: Path) -> psutil.Process | None:
    """The process of a pid file that `write_pid` wrote, or None if it no longer runs or the file cannot be read."""
    try:
        pid, _space, created = path.read_text().strip().partition(" ")
        process = psutil.Process(int(pid))
        if process.status() == psutil.STATUS_ZOMBIE or (created and abs(process.create_time() - float(created)) > 1):
            return None
        return process
    except (OSError, ValueError, psutil.Error):
        return None


def stop_orphans(seconds: float = 10) -> None:
    """Stop the processes of an `athanor up` that was killed; kill those that need more than `seconds`.

    Supervisors, whose pid files are in a subdirectory, continue.
    """
    for process in filter(None, map(from_pid_file, run_directory().glob("*.pid"))):
        with suppress(psutil.Error):
            process.terminate()
            try:
                process.wait(seconds)
            except psutil.TimeoutExpired:
                process.kill()


def supervisors() -> list[psutil.Process]:
    """The supervisors of running attempts on this machine: they outlive the other processes and write pid files."""
    processes = (from_pid_file(path) for path in (run_directory() / "supervisors").glob("*.pid"))
    return [process for process in processes if process is not None]


def stop_supervisors(seconds: float) -> None:
    """Ask the jobs of this machine to save and stop, wait for them, and kill those that take longer than `seconds`."""
    deadline = time.monotonic() + seconds
    signal_all(supervisors(), signal.SIGTERM)
    while supervisors() and time.monotonic() < deadline:
        time.sleep(0.1)
    signal_all(supervisors(), signal.SIGKILL)


def signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to processes, some of which may be gone."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
