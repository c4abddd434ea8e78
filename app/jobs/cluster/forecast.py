"""When queued jobs start, and which job frees their place, if those before them take as long as estimated. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.jobs.cluster.placement import NodeCapacity, eligible_nodes


class JobEnd(NamedTuple):
    """When a job on a node ends: seconds from now, and how many GPUs or slots it frees."""

    seconds: float
    units: int
    job_id: str


class Start(NamedTuple):
    """When a job starts: seconds from now, and the job whose end frees its place; None if it is free now."""

    seconds: float
    after: str | None = None


@dataclass
class NodeForecast:
    """A node, and when its jobs end."""

    node: NodeCapacity
    ends: list[JobEnd] = field(default_factory=list)

    def start_of(self, num_units: int, not_before: Start) -> Start | None:
        """The first start from `not_before` on at which so many units are free; None if there are never so many."""
        if num_units > self.node.size:
            return None
        later = [end for end in self.ends if end.seconds > not_before.seconds]
        ordered = [not_before, *(Start(end.seconds, end.job_id) for end in sorted(later))]
        return next(start for start in ordered if self.node.size - self._in_use(start.seconds) >= num_units)

    def _in_use(self, time: float) -> int:
        return sum(end.units for end in self.ends if end.seconds > time)


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue: its processes, and how long it will take; inf if that is not known."""

    job_id: str
    num_processes: int
    seconds: float


def starts(jobs: Sequence[QueuedJob], nodes: Sequence[NodeForecast]) -> dict[str, Start]:
    """When each job starts, in the order of the queue.

    A job that waits keeps its nodes: no later job starts on one of them before it. A job that waits for one of unknown
    length has inf; one that fits no node is left out.
    """
    expected: dict[str, Start] = {}
    by_name = {forecast.node.name: forecast for forecast in nodes}
    kept_until = dict.fromkeys(by_name, Start(0.0))
    for job in jobs:
        suited = eligible_nodes(job.num_processes, [forecast.node for forecast in nodes])
        options = []
        for node in suited:
            num_units = job.num_processes if node.gpus else 1
            start = by_name[node.name].start_of(num_units, kept_until[node.name])
            if start is not None:
                options.append((start.seconds, node.name, num_units, start))
        if not options:
            continue
        _seconds, name, num_units, start = min(options, key=lambda option: option[:2])
        expected[job.job_id] = start
        by_name[name].ends.append(JobEnd(start.seconds + job.seconds, num_units, job.job_id))
        for node in suited:
            kept_until[node.name] = max(kept_until[node.name], start, key=lambda kept: kept.seconds)
    return expected
