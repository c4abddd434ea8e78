"""The budget of a node: memory and number of the child processes that everything of Athanor starts there.

Whoever starts children reserves what they may use, in a file in the run directory that it keeps locked: the kernel
releases it when that process ends, however it ends. Trainings come first: they reserve without asking. All others
(background tasks, generations, previews) share what trainings leave, and at most `shared_bytes`; who finds no room
waits in a queue of its own, or is refused.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from app.core.settings import run_directory, settings

VARIABLE = "ATHANOR_NODE_BUDGET"  # for processes that do not know the settings
SHARE_BESIDE_TRAININGS = 8  # whatever trainings use, this part of the memory is for all others
LOOK_SECONDS = 0.2  # between two tries of someone who waits


class NoRoom(Exception):
    """A reservation exceeds what is free, both in bytes. Where only processes are short, `free` equals `needed`."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"{needed} bytes are needed, {free} are free")
        self.needed = needed
        self.free = free


class Use(BaseModel):
    """What the children of one process may use."""

    model_config = ConfigDict(frozen=True)

    memory_bytes: int = 0
    num_processes: int = 0
    is_training: bool = False


class NodeBudget(BaseModel):
    """The budget of this machine. `shared_bytes` and `num_processes` are for all but trainings."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    total_bytes: int
    shared_bytes: int
    num_processes: int

    def reserve(self, memory_bytes: int, num_processes: int = 1, *, is_training: bool = False) -> "Reservation":
        """Reserve until the reservation is closed or this process ends. Raises NoRoom, but not for a training."""
        use = Use(memory_bytes=memory_bytes, num_processes=num_processes, is_training=is_training)
        with self._locked():
            self._require_room(use, self._uses())
            path = self.directory / uuid.uuid4().hex
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            reservation = Reservation(self, path, descriptor, use)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                path.write_text(use.model_dump_json())
            except OSError:
                reservation.close()
                raise
        return reservation

    def wait_for(self, memory_bytes: int, num_processes: int = 1, *, seconds: float) -> "Reservation":
        """The same, after waiting at most so long for room. Raises NoRoom."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.reserve(memory_bytes, num_processes)
            except NoRoom:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(LOOK_SECONDS)

    def free_bytes(self) -> int | None:
        """The most memory that a new reservation may have; None: any, as there is no other."""
        with self._locked():
            uses = self._uses()
        return self._free_bytes(list(uses.values())) if _is_used(uses) else None

    def is_overdrawn(self) -> bool:
        """Whether all others have reserved more than the trainings of this node leave them."""
        with self._locked():
            uses = list(self._uses().values())
        return any(use.is_training for use in uses) and self._left_bytes(uses) < _of_others(uses)

    def is_training(self) -> bool:
        """Whether a job trains on this node."""
        with self._locked():
            return any(use.is_training for use in self._uses().values())

    def replace(self, path: Path, before: Use, after: Use) -> None:
        """Write another use to the file of a reservation. Raises NoRoom if it grows beyond what is free."""
        with self._locked():
            if after.memory_bytes > before.memory_bytes or after.num_processes > before.num_processes:
                others = {name: use for name, use in self._uses().items() if name != path.name}
                self._require_room(after, others, before.memory_bytes)
            path.write_text(after.model_dump_json())

    def environment(self) -> dict[str, str]:
        """What tells a child of this budget."""
        return {VARIABLE: self.model_dump_json()}

    def _require_room(self, request: Use, others: dict[str, Use], present_bytes: int = 0) -> None:
        """Raise NoRoom, with what is missing to the present memory, unless what is requested fits beside others."""
        if request.is_training or not _is_used(others):
            return
        free = self._free_bytes(list(others.values()))
        needed = request.memory_bytes - present_bytes
        if request.memory_bytes > free:
            raise NoRoom(needed, max(0, free - present_bytes))
        num_used = sum(use.num_processes for use in others.values() if not use.is_training)
        if num_used + request.num_processes > self.num_processes:
            raise NoRoom(needed, needed)

    def _free_bytes(self, uses: list[Use]) -> int:
        """What trainings leave to a new reservation, and beside others what those have not reserved of their share."""
        of_others, left = _of_others(uses), self._left_bytes(uses)
        return min(left, self.shared_bytes) - of_others if of_others else left

    def _left_bytes(self, uses: list[Use]) -> int:
        of_trainings = sum(use.memory_bytes for use in uses if use.is_training)
        return max(self.total_bytes - of_trainings, self.total_bytes // SHARE_BESIDE_TRAININGS)

    def _uses(self) -> dict[str, Use]:
        """What living processes have reserved, by file. Files that dead ones left are removed."""
        uses = {}
        for path in self.directory.iterdir():
            if path.name.startswith("."):
                continue
            with suppress(FileNotFoundError):  # it is being closed
                if _is_locked(path):
                    uses[path.name] = Use.model_validate_json(path.read_text())
                else:
                    path.unlink()
        return uses

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Reservation:
    """What this process has reserved for its children. Closing it twice does nothing."""

    def __init__(self, budget: NodeBudget, path: Path, descriptor: int, use: Use) -> None:
        self._budget, self._path, self._descriptor = budget, path, descriptor
        self.use = use

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def resize(self, memory_bytes: int, num_processes: int) -> None:
        """Reserve another amount instead. Raises NoRoom if it grows beyond what is free; less is always possible."""
        use = self.use.model_copy(update={"memory_bytes": memory_bytes, "num_processes": num_processes})
        if use == self.use:
            return
        self._budget.replace(self._path, self.use, use)
        self.use = use

    def close(self) -> None:
        """Give it back."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def _of_others(uses: list[Use]) -> int:
    return sum(use.memory_bytes for use in uses if not use.is_training)


def _is_used(uses: dict[str, Use]) -> bool:
    return any(use.memory_bytes for use in uses.values())


def _is_locked(path: Path) -> bool:
    """Whether the process that reserved it lives."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@cache
def node_budget() -> NodeBudget:
    """The budget of the machine that this process runs on."""
    if VARIABLE in os.environ:
        return NodeBudget.model_validate_json(os.environ[VARIABLE])
    total = psutil.virtual_memory().total
    return NodeBudget(
        directory=run_directory() / "reservations",
        total_bytes=total,
        shared_bytes=settings().task_memory_bytes or total // 2,
        num_processes=settings().child_processes,
    )
