"""Free space of the disk, of which children must leave some."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

STEP_BYTES = 1 << 20


def free_bytes(directory: Path, keep_free: int) -> int:
    """What may still be written to the disk of a directory, of which `keep_free` bytes must stay free."""
    return max(0, shutil.disk_usage(directory).free - keep_free)


class DiskSpace:
    """The same, looked at before each MiB that a corpus takes."""

    def __init__(self, directory: Path, keep_free: int = 0) -> None:
        self._directory, self._keep_free = directory, keep_free
        self._num_left = 0  # bytes that may be written before the next look

    def spend(self, num_bytes: int) -> None:
        """Raises OSError (ENOSPC) if so many bytes more would take what must stay free."""
        self._num_left -= num_bytes
        if self._num_left < 0:
            if free_bytes(self._directory, self._keep_free) < max(num_bytes, STEP_BYTES):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._num_left = max(0, STEP_BYTES - num_bytes)


def storage_problem(error: OSError) -> dict[str, Any]:
    """The problem of a corpus that could not be written."""
    if error.errno == errno.ENOSPC:
        return {"code": "disk_filled_up"}
    return {"code": "storage", "why": os.strerror(error.errno or 0)}
