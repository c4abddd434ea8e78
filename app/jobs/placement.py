"""Which queued job goes to which node: first come, first served, and no one is starved. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.jobs import waiting


@dataclass
class Room:
    """What a live node has left. A node without GPUs has `slots`, jobs it runs at once."""

    name: str
    gpus: tuple[str, ...] = ()
    slots: int = 1
    free_gpus: list[str] = field(default_factory=list)
    free_slots: int = 0

    def could_ever_take(self, num_processes: int) -> bool:
        """Whether the job fits when nothing else runs."""
        return num_processes <= len(self.gpus) if self.gpus else self.slots > 0

    def can_take(self, num_processes: int) -> bool:
        """Whether the job fits now."""
        return num_processes <= len(self.free_gpus) if self.gpus else self.free_slots > 0

    def take(self, num_processes: int) -> list[str]:
        """Give the job its room; answers the GPUs it gets."""
        if not self.gpus:
            self.free_slots -= 1
            return []
        given, self.free_gpus = self.free_gpus[:num_processes], self.free_gpus[num_processes:]
        return given


@dataclass(frozen=True)
class Waiting:
    """A queued job, as far as placing it goes."""

    job_id: str
    num_processes: int


@dataclass(frozen=True)
class Decision:
    """Where a job goes, or why it waits."""

    job_id: str
    node: str | None
    gpus: list[str]
    wait_reason: str


def place(jobs: Sequence[Waiting], rooms: Sequence[Room]) -> list[Decision]:
    """Decide about all queued jobs in their order. A node that an earlier job waits for takes no later one."""
    decisions, reserved, num_waiting = [], set[str](), 0
    for job in jobs:
        fitting = suitable(job.num_processes, rooms)
        open_now = [r for r in fitting if r.name not in reserved and r.can_take(job.num_processes)]
        if open_now:
            # The fullest node that still has room keeps the others whole for larger jobs.
            room = min(open_now, key=lambda r: (len(r.free_gpus), r.free_slots, r.name))
            gpus = room.take(job.num_processes)
            reason = waiting.encoded("placed", node=room.name)
            decisions.append(Decision(job.job_id, room.name, gpus, reason))
            continue
        decisions.append(Decision(job.job_id, None, [], _why(job, fitting, rooms, num_waiting)))
        num_waiting += bool(fitting)
        reserved |= {room.name for room in fitting}
    return decisions


def suitable(num_processes: int, rooms: Sequence[Room]) -> list[Room]:
    """The nodes a job may go to: those with enough GPUs; where there is none, those without GPUs."""
    with_gpus = [room for room in rooms if room.gpus and room.could_ever_take(num_processes)]
    return with_gpus or [room for room in rooms if not room.gpus]


def _why(job: Waiting, fitting: Sequence[Room], rooms: Sequence[Room], num_ahead: int) -> str:
    if not rooms:
        return waiting.encoded("no_node")
    if not fitting:
        largest = max(len(room.gpus) for room in rooms)
        return waiting.encoded("too_large", needed=job.num_processes, largest=largest)
    return waiting.encoded("no_room", ahead=num_ahead) if num_ahead else waiting.encoded("next")
