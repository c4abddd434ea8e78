"""Control groups, version 2: the kernel's own limit of the memory and processes of a child and all that it starts.

Only below a group that systemd has delegated to this service (`Delegate=yes`). Standard library only.
"""

import os
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
LEAF = "athanor"  # the group that our own processes move to, as one with limited groups below it must hold none
PREFIX = "child-"
CONTROLLERS = {"memory", "pids"}
EMPTY_SECONDS = 60.0  # how old an empty group must be to be that of a child that has ended


def create_group(memory_bytes: int | None, num_processes: int) -> Path | None:
    """A new group with limits for a child to `join`; None where there are no groups to create, or none for us.

    Groups of children that have ended are removed at the same time.
    """
    parent = _delegated_group()
    if parent is None:
        return None
    try:
        _remove_empty(parent)
        group = parent / f"{PREFIX}{uuid.uuid4().hex}"
        group.mkdir()
        (group / "pids.max").write_text(str(num_processes))
        (group / "memory.max").write_text("max" if memory_bytes is None else str(memory_bytes))
        (group / "memory.oom.group").write_text("1")  # all of its processes end, not any one
        with suppress(FileNotFoundError):  # a kernel without swap
            (group / "memory.swap.max").write_text("0")
    except OSError:
        return None
    return group


def join(group: Path) -> None:
    """Move this process into a group. Without it the other limits still hold, so an error is ignored."""
    with suppress(OSError):
        (group / "cgroup.procs").write_text("0")


def has_exceeded_memory(group: str | None) -> bool:
    """Whether the kernel has killed processes of a group as they needed more memory than its limit."""
    with suppress(OSError, ValueError):
        lines = (Path(group or "") / "memory.events").read_text().splitlines()
        return any(int(count) > 0 for name, count in map(str.split, lines) if name == "oom_kill")
    return False


@cache
def _delegated_group() -> Path | None:
    """The group below which we may create others, made ready for that; None without one."""
    try:
        line = next(line for line in OWN.read_text().splitlines() if line.startswith("0::"))
        own = MOUNT / line.removeprefix("0::").lstrip("/")
        group = own.parent if own.name == LEAF else own
        is_delegated = os.getxattr(group, "user.delegate") == b"1"
        if not is_delegated or not set((group / "cgroup.controllers").read_text().split()) >= CONTROLLERS:
            return None
        leaf = group / LEAF
        leaf.mkdir(exist_ok=True)
        for process in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(process)
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(CONTROLLERS)))
    except (OSError, StopIteration):
        return None
    return group


def _remove_empty(parent: Path) -> None:
    for group in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # one with processes cannot be removed
            if time.time() - group.stat().st_mtime > EMPTY_SECONDS:
                group.rmdir()
