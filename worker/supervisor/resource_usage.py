"""Measures what an attempt uses of its node: memory, processor cores, GPUs and disk, as curves beside the loss."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pynvml

from trainer.events import Event, PointsEvent
from worker import node

POINT_SECONDS = 5.0  # between two points of these curves, at least
SAMPLE_SECONDS = 2.0  # between two looks at the memory, of which a point has the highest


class ResourceUsage:
    """What the processes of an attempt use. The caller passes the time of a monotonic clock in seconds.

    A point belongs to the step at whose end it is recorded: it is added to the training metrics of that step.
    """

    def __init__(
        self, find_processes: Callable[[], list[psutil.Process]], gpus: Sequence[str], directory: Path, now: float
    ) -> None:
        self._find_processes = find_processes
        self._gpus = [gpu["index"] for gpu in node.gpus() if gpu["uuid"] in gpus]
        self._directory = directory  # on the disk that checkpoints are written to
        self._processes: list[psutil.Process] = []
        self._cpu_seconds: dict[int, float] = {}  # of each process, at the last point
        self._point_at = self._look_at = now
        self._has_point = False
        self._peak_bytes = 0  # since the last point

    def observe(self, now: float) -> None:
        """Look at the memory of the processes, unless it was looked at within SAMPLE_SECONDS."""
        if now >= self._look_at:
            self._look_at = now + SAMPLE_SECONDS
            self._look()

    def _look(self) -> None:
        self._processes = self._find_processes()
        for process in self._processes:
            with suppress(psutil.Error):
                self._peak_bytes = max(self._peak_bytes, process.memory_info().rss)

    def with_usage(self, batch: list[Event], now: float) -> list[Event]:
        """The batch with a point of usage at its last training step, if one is due. `confirm` when it is recorded."""
        is_due = not self._has_point or now >= self._point_at + POINT_SECONDS
        steps = [
            index for index, event in enumerate(batch) if isinstance(event, PointsEvent) and "loss" in event.values
        ]
        if not is_due or not steps:
            return batch
        index = steps[-1]
        event = batch[index]
        assert isinstance(event, PointsEvent)
        self._look()
        used = {name: float(value) for name, value in self._measure(now).items()}  # as validation would have made them
        measured = event.model_copy(update={"values": {**event.values, **used}})
        return [*batch[:index], measured, *batch[index + 1 :]]

    def confirm(self, now: float) -> None:
        """Begin the next point: the database has the last one."""
        self._point_at, self._has_point, self._peak_bytes = now, True, 0
        self._cpu_seconds = self._read_cpu_seconds()

    def _measure(self, now: float) -> dict[str, float]:
        """One value of each curve that can be measured here."""
        values: dict[str, float] = {"disk_free_bytes": shutil.disk_usage(self._directory).free}
        if self._peak_bytes:
            values["memory_bytes"] = self._peak_bytes
        if self._has_point and now > self._point_at:
            used = self._read_cpu_seconds()
            seconds = sum(total - self._cpu_seconds.get(pid, 0.0) for pid, total in used.items())
            values["cpu_percent"] = 100 * max(0.0, seconds) / (now - self._point_at) / num_cores()
        return values | self._measure_gpus()

    def _read_cpu_seconds(self) -> dict[int, float]:
        """Processor time of each process so far, by its ID."""
        used = {}
        for process in self._processes:
            with suppress(psutil.Error):
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
        return used

    def _measure_gpus(self) -> dict[str, float]:
        """Memory of the fullest GPU, mean utilization and total power, as far as the driver reports them."""
        uses = [use for use in map(node.gpu_use, self._gpus) if use]
        powers = [power for power in map(read_power, self._gpus) if power is not None]
        values: dict[str, float] = {"gpu_watts": sum(powers)} if powers else {}
        if uses:
            values["gpu_memory_bytes"] = max(use["memory_used_bytes"] for use in uses)
            values["gpu_percent"] = sum(use["percent"] for use in uses) / len(uses)
        return values


def read_power(index: int) -> float | None:
    """The power that a GPU draws, in watts; None if the driver does not report it."""
    with suppress(pynvml.NVMLError):
        return int(pynvml.nvmlDeviceGetPowerUsage(pynvml.nvmlDeviceGetHandleByIndex(index))) / 1000
    return None


def num_cores() -> int:
    """How many processor cores this process and its children may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
