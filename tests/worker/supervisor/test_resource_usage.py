"""What is measured of an attempt's processes, and where it is added to the journal."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from trainer.events import Event, PhaseEvent, PointsEvent
from worker import node
from worker.supervisor import resource_usage
from worker.supervisor.resource_usage import ResourceUsage


def step(seq: int, **values: float) -> PointsEvent:
    return PointsEvent(seq=seq, at=float(seq), step=seq, values=values or {"loss": 2.0})


class ProcessOfSizes:
    """A process whose memory in bytes is the next of some sizes each time it is looked at."""

    def __init__(self, sizes: Iterator[int]) -> None:
        self.sizes = sizes

    def memory_info(self) -> SimpleNamespace:
        return SimpleNamespace(rss=next(self.sizes))

    def cpu_times(self) -> SimpleNamespace:
        return SimpleNamespace(user=1.0, system=0.0)

    pid = 7


def usage_of_this_process(directory: Path, gpus: list[str] | None = None) -> ResourceUsage:
    return ResourceUsage(lambda: [psutil.Process(os.getpid())], gpus or [], directory, 0.0)


def test_the_last_step_of_a_batch_has_what_the_processes_use(tmp_path: Path) -> None:
    usage = usage_of_this_process(tmp_path)
    batch: list[Event] = [
        step(1),
        step(2),
        PhaseEvent(seq=3, at=3.0, phase="train", done=2, total=9),
        step(4, eval_loss=1.0),
    ]
    measured = usage.with_usage(batch, 1.0)
    assert [measured[0], *measured[2:]] == [batch[0], *batch[2:]]
    values: dict[str, Any] = measured[1].values  # type: ignore[union-attr]
    assert values.keys() == {"loss", "memory_bytes", "disk_free_bytes"}
    assert {type(value) for value in values.values()} == {float}  # another one is stored with a warning in the log
    assert 0.5 < values["memory_bytes"] / psutil.Process().memory_info().rss < 2
    assert 0 < values["disk_free_bytes"] <= psutil.disk_usage(str(tmp_path)).total


def test_a_point_comes_at_most_every_five_seconds_and_only_once_recorded(tmp_path: Path) -> None:
    usage = usage_of_this_process(tmp_path)
    assert usage.with_usage([step(1)], 1.0) != [step(1)]
    assert usage.with_usage([step(1)], 1.1) != [step(1)]  # the first one did not reach the database
    usage.confirm(1.2)
    assert usage.with_usage([step(2)], 6.1) == [step(2)]
    assert usage.with_usage([PhaseEvent(seq=3, at=3.0, phase="save", done=0, total=1)], 6.2)[0].kind == "phase"
    assert usage.with_usage([step(3)], 6.2) != [step(3)]


def test_processor_time_is_a_share_of_all_cores_since_the_last_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = usage_of_this_process(tmp_path)
    monkeypatch.setattr(resource_usage, "num_cores", lambda: 4)
    seconds = iter([{7: 10.0}, {7: 18.0, 8: 2.0}])  # a process that has begun since counts as a whole
    monkeypatch.setattr(usage, "_read_cpu_seconds", lambda: next(seconds))
    usage.with_usage([step(1)], 100.0)
    usage.confirm(100.0)
    (measured,) = usage.with_usage([step(2)], 110.0)
    assert measured.values["cpu_percent"] == 25.0  # type: ignore[union-attr]


def test_the_highest_memory_since_the_last_point_counts(tmp_path: Path) -> None:
    sizes = iter([100, 900, 300, 200])

    usage = ResourceUsage(lambda: [ProcessOfSizes(sizes)], [], tmp_path, 0.0)
    usage.observe(0.0)
    usage.observe(1.0)  # too early to look again
    usage.observe(2.0)
    (first,) = usage.with_usage([step(1)], 3.0)
    usage.confirm(3.0)
    (second,) = usage.with_usage([step(2)], 9.0)
    assert [point.values["memory_bytes"] for point in (first, second)] == [900, 200]  # type: ignore[union-attr]


def test_the_fullest_gpu_of_the_job_the_mean_of_its_gpus_and_their_power_are_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses = {1: (30, 40), 2: (50, 80), 0: (99, 99)}
    monkeypatch.setattr(node, "gpus", lambda: [{"index": n, "uuid": f"GPU-{n}"} for n in range(3)])
    monkeypatch.setattr(node, "gpu_use", lambda n: {"memory_used_bytes": uses[n][0], "percent": uses[n][1]})
    monkeypatch.setattr(resource_usage, "read_power", lambda n: 300.5 if n else None)
    (measured,) = usage_of_this_process(tmp_path, ["GPU-1", "GPU-2"]).with_usage([step(1)], 1.0)
    values = measured.values  # type: ignore[union-attr]
    assert (values["gpu_memory_bytes"], values["gpu_percent"], values["gpu_watts"]) == (50, 60, 601)
