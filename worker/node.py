"""What a worker does for its node besides tasks: its heartbeat with the node's resources, and its fork server."""

import logging
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import psutil
import pynvml
from sqlalchemy.exc import DBAPIError, TimeoutError

from app.core import db, storage
from app.core.json_shapes import GpuUsage, Telemetry
from app.core.node_budget import node_budget
from app.core.settings import ROOT, settings
from app.jobs.cluster import nodes
from app.jobs.lifecycle import notifications
from trainer.processes.child_environment import child_environment
from worker.environment import fork_server_socket

log = logging.getLogger(__name__)

BEAT_SECONDS = min(3.0, settings().lease_seconds / 3)
LONGEST_PAUSE = 60.0  # longest wait before restarting a fork server that keeps dying


class PeriodicThread:
    """A thread that calls a function every BEAT_SECONDS until it is stopped."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait up to BEAT_SECONDS for the current call to return."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(BEAT_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._work()
            self._stop.wait(BEAT_SECONDS)


class NodeHeartbeat:
    """Writes the node's row in the database."""

    def __init__(self) -> None:
        self._started_at = datetime.now(UTC)
        self._is_away = False
        self._is_known = False

    def beat(self) -> None:
        """Update the row. A database outage is logged once."""
        try:
            with db.transaction() as session:
                nodes.heartbeat(session, name=settings().node_name, started_at=self._started_at, **describe())
        except (DBAPIError, TimeoutError) as error:
            if not self._is_away:
                log.warning("the database is unreachable; the heartbeat will be retried: %s", error)
            self._is_away, self._is_known = True, False
            return
        self._is_away = False
        if not self._is_known:
            notifications.notify_scheduler()  # jobs may be waiting for a node
            self._is_known = True


def describe() -> dict[str, Any]:
    """The hardware of this machine, its load, and library versions."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(storage.data()))
    return {
        "num_cpus": psutil.cpu_count() or 1,
        "memory_bytes": memory.total,
        "gpus": gpus(),
        "slots": settings().node_slots,
        "telemetry": Telemetry(
            cpu_percent=psutil.cpu_percent(),
            memory_used_bytes=memory.total - memory.available,
            disk_bytes=disk.total,
            disk_free_bytes=disk.free,
            gpus=[GpuUsage(**use) for use in map(gpu_use, range(len(gpus()))) if use],
            versions=versions(),
        ),
    }


@cache
def gpus() -> list[dict[str, Any]]:
    """The NVIDIA GPUs of this machine; empty without a driver."""
    try:
        pynvml.nvmlInit()
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid, name = (_text(ask(handle)) for ask in (pynvml.nvmlDeviceGetUUID, pynvml.nvmlDeviceGetName))
    total = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    return {"index": index, "uuid": uuid, "name": name, "memory_bytes": total}


def gpu_use(index: int) -> dict[str, Any]:
    """Memory in use (bytes) and utilization (percent) of a GPU; empty if the driver does not report them."""
    with suppress(pynvml.NVMLError):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        percent = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        return {"index": index, "memory_used_bytes": used, "percent": percent}
    return {}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@cache
def versions() -> dict[str, str]:
    """Versions of the software that determines numerical results."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "deepspeed")},
    }


class ForkServer:
    """Keeps one fork server alive as a child of this worker (see worker/fork_server.py)."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = 0.0

    def watch(self) -> None:
        """Start it; restart it if it has died, with exponential back-off."""
        now = time.monotonic()
        if self._process is not None:
            if self._process.poll() is None or now < self._started_at + self._pause:
                return
            log.warning("the fork server exited with %s and is restarted", self._process.returncode)
            self._pause = min(LONGEST_PAUSE, max(BEAT_SECONDS, 2 * self._pause))
        self._started_at = now
        self._process = self._start()

    def stop(self) -> None:
        """Terminate it. Its forks keep running."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            fork_server_socket().unlink(missing_ok=True)

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        fork_server_socket().unlink(missing_ok=True)
        path = storage.data() / "logs" / "fork_server.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "worker.fork_server", str(fork_server_socket()), str(os.getpid())],
                cwd=ROOT,
                env=child_environment("trainer", **node_budget().environment()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
