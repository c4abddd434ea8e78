"""When queued jobs will start, if those before them take as long as estimated. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class NodeForecast:
    """A node of `size` GPUs or slots. `ends`: when its jobs end, in seconds from now, and how many units each frees."""

    name: str
    size: int
    has_gpus: bool
    ends: list[tuple[float, int]] = field(default_factory=list)

    def start_of(self, num_units: int, not_before: float) -> float | None:
        """The first time from `not_before` on at which so many units are free; None if there are never so many."""
        if num_units > self.size:
            return None
        times = sorted({not_before, *(end for end, _units in self.ends if end > not_before)})
        return next(time for time in times if self.size - self._in_use(time) >= num_units)

    def _in_use(self, time: float) -> int:
        return sum(units for end, units in self.ends if end > time)


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue: its processes, and how long it will take; inf if that is not known."""

    job_id: str
    num_processes: int
    seconds: float


def start_times(jobs: Sequence[QueuedJob], nodes: Sequence[NodeForecast]) -> dict[str, float]:
    """Seconds until each job starts, in the order of the queue.

    A job that waits keeps its nodes: no later job starts on one of them before it. A job that waits for one of unknown
    length has inf; one that fits no node is left out.
    """
    starts: dict[str, float] = {}
    kept_until = dict.fromkeys((node.name for node in nodes), 0.0)
    for job in jobs:
        with_gpus = [node for node in nodes if node.has_gpus and job.num_processes <= node.size]
        suited = with_gpus or [node for node in nodes if not node.has_gpus]
        options = []
        for node in suited:
            num_units = job.num_processes if node.has_gpus else 1
            start = node.start_of(num_units, kept_until[node.name])
            if start is not None:
                options.append((start, node.name, node, num_units))
        if not options:
            continue
        start, _name, node, num_units = min(options, key=lambda option: option[:2])
        starts[job.job_id] = start
        node.ends.append((start + job.seconds, num_units))
        for other in suited:
            kept_until[other.name] = max(kept_until[other.name], start)
    return starts
