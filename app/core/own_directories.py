"""Directories that only this user may enter: what owns them is checked, and what others may do is taken away."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from app.core.i18n import _

# Root lets the user that PostgreSQL runs as pass, as the group of a directory; others let nobody pass.
OTHERS = 0o077 if os.getuid() else 0o067
ROOT_USER = 0


class UnsafeDirectory(RuntimeError):
    """Another user controls a directory that we would use. The message is a translated sentence for the terminal."""


def make_private(path: Path, *, is_roots_too: bool = False) -> None:
    """Create a directory unless it exists, and close it to other users.

    Raises UnsafeDirectory for a link, for what is no directory, and for a directory of another user, unless root's are
    accepted too.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectory(_("{path} must be a directory and no link to one. Remove it.", path=path))
    _check_owner(path, status.st_uid, is_roots_too)
    _close(path, OTHERS)


def make_tree_private(path: Path) -> None:
    """Create a directory unless it exists, and close it and all in it to other users, as earlier versions did not.

    What lies in a closed one was written by processes that close their files: it is not looked at again. Raises
    UnsafeDirectory for a directory, or a link to it, of another user than this one and root.
    """
    if path.is_symlink():
        _check_owner(path, path.lstat().st_uid, is_roots_too=True)
    path = path.resolve()
    if path.is_dir() and path.stat().st_mode & OTHERS:
        for directory, names, files in os.walk(path):
            for name in (*names, *files):
                _close(Path(directory, name), 0o077)
    make_private(path, is_roots_too=True)


def _check_owner(path: Path, owner: int, is_roots_too: bool) -> None:
    if owner != os.getuid() and not (is_roots_too and owner == ROOT_USER):
        raise UnsafeDirectory(_("{path} belongs to another user. Remove it, or make it yours.", path=path))


def _close(path: Path, bits: int) -> None:
    with suppress(FileNotFoundError, PermissionError):  # gone meanwhile, or another user's
        mode = path.lstat().st_mode
        if mode & bits and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~bits)
