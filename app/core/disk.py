"""Free space of the data directory: how much user data may still take, and the ballast.

The reserve is space that uploads, imports, exports and new jobs leave free. A quarter of it is the ballast: a file of
real blocks, deleted once almost nothing is free, so that PostgreSQL and checkpoints can still write while people make
room. Until the whole reserve is free again, the disk counts as full.
"""

import contextlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from app.core import storage
from app.core.errors import PanelError
from app.core.formatting import file_size
from app.core.i18n import _, gettext_noop
from app.core.settings import settings

log = logging.getLogger(__name__)

BALLAST_PART = 4  # the ballast is this part of the reserve
EMERGENCY_PART = 8  # with less than this part of the reserve free, the ballast is deleted


def free_bytes() -> int:
    """Bytes that are free on the disk of the data directory."""
    root = storage.data()
    root.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(root).free


def kept_free() -> int:
    """Bytes that user data must leave free besides the ballast, which is part of the reserve while it exists."""
    return max(0, settings().disk_reserve_bytes - _allocated(storage.ballast()))


def room() -> int:
    """Bytes that user data may still take; 0 or less if the disk is full."""
    return free_bytes() - kept_free()


def is_full() -> bool:
    """Whether no user data may be written."""
    return room() <= 0


def is_low() -> bool:
    """Whether little more than the reserve is free: less than twice as much."""
    return room() < settings().disk_reserve_bytes


TOO_LARGE = gettext_noop(
    "This needs {needed} of disk space, but only {free} is left. Delete corpora, models or exports that are no "
    "longer needed and empty the trash, or free other space, then try again."
)


def require_room(num_bytes: int = 1, too_large: str = TOO_LARGE) -> None:
    """Raise PanelError (507) if user data may not take so many bytes more. `too_large` names {needed} and {free}."""
    left = room()
    if left <= 0:
        message = _(
            "The disk of the data directory is full. Delete corpora, models or exports that are no longer needed and "
            "empty the trash, or free other space, then try again."
        )
        raise PanelError(507, "disk_full", message)
    if num_bytes > left:
        message = _(too_large, needed=file_size(num_bytes), free=file_size(left))
        raise PanelError(507, "disk_full", message)


def freed_by_deleting(directories: Iterable[Path]) -> int:
    """Bytes that deleting directories frees. A file with a hard link outside of them frees nothing."""
    files: dict[tuple[int, int], os.stat_result] = {}
    num_links: Counter[tuple[int, int]] = Counter()
    for directory in directories:
        for folder, _folders, names in os.walk(directory):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    file = os.lstat(os.path.join(folder, name))
                    files[file.st_dev, file.st_ino] = file
                    num_links[file.st_dev, file.st_ino] += 1
    return sum(file.st_size for inode, file in files.items() if num_links[inode] >= file.st_nlink)


def keep_ballast() -> None:
    """Delete the ballast in an emergency, and allocate it when the whole reserve is free. Errors are logged."""
    reserve, path = settings().disk_reserve_bytes, storage.ballast()
    try:
        if free_bytes() < reserve // EMERGENCY_PART:
            if path.exists():
                path.unlink(missing_ok=True)
                log.warning("the disk is almost full: the ballast is deleted, new user data is refused")
        elif _allocated(path) < reserve // BALLAST_PART and room() > 0 and hasattr(os, "posix_fallocate"):
            _allocate(path, reserve // BALLAST_PART)
    except OSError as error:
        log.warning("ballast: %s", error)


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _allocate(path: Path, num_bytes: int) -> None:
    """Give a file real blocks; no file is left where the disk cannot."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
