"""The priority of all processes of a session together. Standard library only."""

from contextlib import suppress
from pathlib import Path

_GROUP = Path("/proc/self/autogroup")


def set_session_niceness(niceness: int) -> None:
    """Set that of the session of this process, where the kernel has one: where it shares the processors among sessions
    (sched_autogroup_enabled, as on most desktops and many servers), the niceness of processes counts only within one.
    """
    with suppress(OSError):
        _GROUP.write_text(str(niceness))
