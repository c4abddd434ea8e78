"""Which queued job goes to which node, in fair order and without starvation. Pure functions.

The order: by priority, which rises while a job waits; then the owner with the fewest jobs; then the oldest job. Jobs
that have waited very long come before all others, by age alone, and those that an administrator has placed come first.
A job that does not fit yet reserves its nodes, so that small jobs cannot overtake a large one forever.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from app.jobs.lifecycle import wait_reasons

HIGHEST = 1  # no wait raises a job above the high ones: among those, owners take turns
OVERDUE = 2  # but jobs that waited very long go before all others, the oldest first, regardless of their owners
OVERDUE_AGINGS = 4
PLACED = 3  # jobs that an administrator has put in an order come first


@dataclass
class NodeCapacity:
    """The free capacity of a node, and whether it is live. A node without GPUs has `slots`: jobs it runs at once."""

    name: str
    gpus: tuple[str, ...] = ()
    slots: int = 1
    free_gpus: list[str] = field(default_factory=list)
    free_slots: int = 0
    is_live: bool = True
    is_draining: bool = False

    @property
    def takes_jobs(self) -> bool:
        """Whether jobs are placed on it: it is live and not being drained."""
        return self.is_live and not self.is_draining

    @property
    def size(self) -> int:
        """How many GPUs or slots it has, busy or free."""
        return len(self.gpus) or self.slots

    @property
    def free(self) -> int:
        """How many of them are free."""
        return len(self.free_gpus) if self.gpus else max(0, self.free_slots)

    def can_take(self, num_processes: int) -> bool:
        """Whether the job fits now."""
        return num_processes <= len(self.free_gpus) if self.gpus else self.free_slots > 0

    def take(self, num_processes: int) -> list[str]:
        """Assign the job its GPUs or slot; returns the UUIDs of its GPUs."""
        if not self.gpus:
            self.free_slots -= 1
            return []
        assigned, self.free_gpus = self.free_gpus[:num_processes], self.free_gpus[num_processes:]
        return assigned


@dataclass(frozen=True)
class WaitingJob:
    """What placement needs to know of a queued job."""

    job_id: str
    num_processes: int
    owner_id: str = ""
    rank: int = 0
    since: float = 0.0  # the lower goes first among those of a rank and an owner: when it was queued, or its number


@dataclass(frozen=True)
class Decision:
    """Where a job goes, or why it waits."""

    job_id: str
    node: str | None
    gpus: list[str]
    wait_reason: str


def rank(priority: int, waited_seconds: float, aging_seconds: float) -> int:
    """The priority of a job after it has waited so long."""
    agings = int(max(0.0, waited_seconds) / aging_seconds)
    return OVERDUE if agings >= OVERDUE_AGINGS else min(HIGHEST, priority + agings)


def place(
    jobs: Sequence[WaitingJob],
    rooms: Sequence[NodeCapacity],
    placed: Mapping[str, int] | None = None,
    max_per_owner: int = 0,
    quotas: Mapping[str, int] | None = None,
) -> list[Decision]:
    """Decide about all queued jobs. `placed`: placed jobs by owner, of which each may have as many as their quota says,
    else `max_per_owner` (0: any).
    """
    return _Round(rooms, placed or {}, max_per_owner, quotas or {}).decide(jobs)


def hold(jobs: Sequence[WaitingJob], code: str, **values: float) -> list[Decision]:
    """Leave all queued jobs waiting, for one reason."""
    return [Decision(job.job_id, None, [], wait_reasons.encoded(code, **values)) for job in jobs]


def fair_order(jobs: Sequence[WaitingJob], placed: Mapping[str, int], ever: Mapping[str, bool]) -> Iterator[WaitingJob]:
    """The jobs in their order. One that will get a place counts for its owner at once, one that never can does not."""
    counts = Counter(placed)
    for present in sorted({job.rank for job in jobs}, reverse=True):
        queues: dict[str, list[WaitingJob]] = {}
        for job in sorted((job for job in jobs if job.rank == present), key=_age, reverse=True):
            queues.setdefault("" if present >= OVERDUE else job.owner_id, []).append(job)
        heads = [(counts[owner], _age(queue[-1]), owner) for owner, queue in queues.items()]
        heapify(heads)
        while heads:
            _count, _oldest, owner = heappop(heads)
            job = queues[owner].pop()
            yield job
            counts[job.owner_id] += ever[job.job_id]
            if queues[owner]:
                heappush(heads, (counts[owner], _age(queues[owner][-1]), owner))


def _age(job: WaitingJob) -> tuple[float, str]:
    return job.since, job.job_id


def eligible_nodes(num_processes: int, rooms: Sequence[NodeCapacity]) -> list[NodeCapacity]:
    """The nodes a job can run on: those with enough GPUs; if there are none, those without GPUs.

    Nodes that stopped reporting or are drained count, too: otherwise a job would move from GPU to CPU only because a
    node restarts.
    """
    with_gpus = [room for room in rooms if num_processes <= len(room.gpus)]
    return with_gpus or [room for room in rooms if not room.gpus]


class _Round:
    """One pass over the queue."""

    def __init__(
        self, rooms: Sequence[NodeCapacity], placed: Mapping[str, int], max_per_owner: int, quotas: Mapping[str, int]
    ) -> None:
        self.rooms, self.placed, self.max_per_owner, self.quotas = rooms, Counter(placed), max_per_owner, quotas
        self.reserved: set[str] = set()
        self.ahead = Counter[frozenset[str]]()  # jobs that wait, by the nodes they wait for
        self.over_limit = Counter[str]()  # jobs that wait for their owner's own limit

    def decide(self, jobs: Sequence[WaitingJob]) -> list[Decision]:
        suited = {size: eligible_nodes(size, self.rooms) for size in {job.num_processes for job in jobs}}
        ever = {job.job_id: bool(suited[job.num_processes]) or not self.rooms for job in jobs}
        order = fair_order(jobs, self.placed, ever)
        return [self._decide(job, suited[job.num_processes]) for job in order]

    def _decide(self, job: WaitingJob, suited: Sequence[NodeCapacity]) -> Decision:
        if self.rooms and not suited:
            return self._wait(job, "too_large", needed=job.num_processes, **self._largest())
        limit = self.quotas.get(job.owner_id, self.max_per_owner or None)
        if limit is not None and self.placed[job.owner_id] >= limit:
            self.over_limit[job.owner_id] += 1
            return self._wait(job, "own_limit", limit=limit, position=self.over_limit[job.owner_id])
        live = [room for room in suited if room.takes_jobs]
        open_now = [room for room in live if room.name not in self.reserved and room.can_take(job.num_processes)]
        if not open_now:
            return self._wait_in_line(job, frozenset(room.name for room in suited), live)
        # Best fit: the fullest node with room leaves the others to larger jobs.
        room = min(open_now, key=lambda room: (room.free, room.name))
        gpus = room.take(job.num_processes)
        self.placed[job.owner_id] += 1
        return Decision(job.job_id, room.name, gpus, wait_reasons.encoded("placed", node=room.name))

    def _wait_in_line(self, job: WaitingJob, names: frozenset[str], live: Sequence[NodeCapacity]) -> Decision:
        """The job waits for these nodes and reserves them against later jobs. `live` are those that take jobs."""
        position = 1 + sum(count for others, count in self.ahead.items() if others & names or not names)
        self.ahead[names] += 1
        if not live:
            is_draining = any(room.is_live and room.name in names for room in self.rooms)
            silent = "silent" if any(room.is_live for room in self.rooms) else "no_node"
            code = "draining" if is_draining else silent
            return self._wait(job, code, position=position)
        is_kept = any(room.can_take(job.num_processes) for room in live)
        self.reserved |= names
        total, free = sum(room.size for room in live), sum(room.free for room in live)
        busy = {"busy": total - free, "total": total}
        if is_kept:
            return self._wait(job, "reserved", position=position)
        if not live[0].gpus:
            return self._wait(job, "no_slot" if position > 1 else "next_slot", position=position, **busy)
        needed = job.num_processes
        return self._wait(job, "no_gpu" if position > 1 else "next_gpu", position=position, needed=needed, **busy)

    def _largest(self) -> dict[str, int | str]:
        room = max(self.rooms, key=lambda room: (len(room.gpus), room.name))
        return {"node": room.name, "largest": len(room.gpus)}

    @staticmethod
    def _wait(job: WaitingJob, code: str, **values: int | str) -> Decision:
        return Decision(job.job_id, None, [], wait_reasons.encoded(code, **values))
