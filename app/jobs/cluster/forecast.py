"""When queued jobs will start, if those before them take as long as estimated. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.jobs.cluster.placement import NodeCapacity, eligible_nodes


@dataclass
class NodeForecast:
    """A node, and when its jobs end: seconds from now, and how many GPUs or slots each frees."""

    node: NodeCapacity
    ends: list[tuple[float, int]] = field(default_factory=list)

    def start_of(self, num_units: int, not_before: float) -> float | None:
        """The first time from `not_before` on at which so many units are free; None if there are never so many."""
        if num_units > self.node.size:
            return None
        times = sorted({not_before, *(end for end, _units in self.ends if end > not_before)})
        return next(time for time in times if self.node.size - self._in_use(time) >= num_units)

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
    by_name = {forecast.node.name: forecast for forecast in nodes}
    kept_until = dict.fromkeys(by_name, 0.0)
    for job in jobs:
        suited = eligible_nodes(job.num_processes, [forecast.node for forecast in nodes])
        options = []
        for node in suited:
            num_units = job.num_processes if node.gpus else 1
            start = by_name[node.name].start_of(num_units, kept_until[node.name])
            if start is not None:
                options.append((start, node.name, num_units))
        if not options:
            continue
        start, name, num_units = min(options)
        starts[job.job_id] = start
        by_name[name].ends.append((start + job.seconds, num_units))
        for node in suited:
            kept_until[node.name] = max(kept_until[node.name], start)
    return starts
