"""Limits of child processes that handle other people's files. Standard library only.

`python -m trainer.processes.child_limits LIMITS COMMAND ...` sets the limits of its own process and becomes the
command. So the parent decides, no child forgets, and nothing runs between fork and exec in a parent with threads.

Memory is RLIMIT_DATA, what a process may write: libraries and weights are mapped in gigabytes and cost nothing. Where
systemd delegates a control group to us, a child has one of its own besides (cgroups.py), which limits its memory with
that of all it starts, and their number. Elsewhere that is not limited: RLIMIT_NPROC counts all of a user's processes,
this installation's included, and the runner kills the session of a child anyway.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from trainer.processes import cgroups
from trainer.processes.parent_death import signal_on_parent_death

PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>
GRACE_SECONDS = 5  # of computing between SIGXCPU, which ends a child, and SIGKILL, if it ignores that


@dataclass(frozen=True)
class ChildLimits:
    """What a child may use at most. None: no limit of its own.

    With `dies_with_parent`, the kernel kills the child when the thread that started it ends.
    """

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    file_bytes: int | None = None  # size of a file that it writes
    open_files: int = 256
    niceness: int = 5  # added to that of the parent
    dies_with_parent: bool = True
    num_processes: int = 1024  # and threads, in a control group
    group: str | None = None  # the directory of its control group, which `grouped` sets


def limited_command(limits: ChildLimits, command: Sequence[str]) -> list[str]:
    """The command line that runs a command under limits. Its working directory must be the one with `trainer`."""
    return [sys.executable, "-m", "trainer.processes.child_limits", json.dumps(asdict(grouped(limits))), *command]


def grouped(limits: ChildLimits) -> ChildLimits:
    """The same limits with a new control group, where that is possible and there is none yet."""
    group = limits.group or cgroups.create_group(limits.memory_bytes, limits.num_processes)
    return replace(limits, group=str(group) if group is not None else None)


def apply(limits: ChildLimits) -> None:
    """Limit this process and its children. Limits are only lowered."""
    if limits.group is not None:
        cgroups.join(Path(limits.group))
    if limits.dies_with_parent:
        signal_on_parent_death(signal.SIGKILL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.nice(limits.niceness)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    if limits.memory_bytes is not None:
        _lower(resource.RLIMIT_DATA, limits.memory_bytes)
    if limits.file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    if limits.cpu_seconds is not None:
        _lower(resource.RLIMIT_CPU, limits.cpu_seconds, GRACE_SECONDS)


def _lower(kind: int, value: int, grace: int = 0) -> None:
    """Set a resource limit (resource.RLIMIT_...), but never above the present hard one."""
    _soft, hard = resource.getrlimit(kind)
    upper = value + grace
    upper = upper if hard == resource.RLIM_INFINITY else min(upper, hard)
    resource.setrlimit(kind, (min(value, upper), upper))


def limit_memory(num_bytes: int) -> None:
    """Limit the memory of this process for now, as far as its hard limit allows."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard), hard)
    )


def data_bytes() -> int:
    """The memory of this process that RLIMIT_DATA counts, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def main() -> None:
    """Limit this process, then become the command of the arguments."""
    limits = ChildLimits(**json.loads(sys.argv[1]))
    apply(limits)
    if limits.file_bytes is not None:
        # Python before 3.14 keeps a compiled module that the limit has cut, and no process can import it any more:
        # https://github.com/python/cpython/issues/126606
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command of our own code, without a shell


if __name__ == "__main__":
    main()
