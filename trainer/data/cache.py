"""A content-addressed cache of directories, shared by all runs: an entry is named by the hash of its inputs."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.run_dir import CORPORA_SUFFIX, LOCK_SUFFIX, MAKING, sync_directory, sync_files

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP)  # of a file system on which files cannot be locked
WAIT_SECONDS = 1.0  # between two tries to get the lock


def cache_key(**parts: Any) -> str:
    """The name of a cache entry: SHA-256 of everything that determines its content, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def get_or_create(
    entry: Path, make: Callable[[Path], None], corpora: Sequence[str] = (), waiting: Callable[[], None] = lambda: None
) -> bool:
    """Create a cache entry unless it exists. Returns whether this call created it.

    `corpora` are the SHA-256 of the texts that it contains parts of. A file beside the entry lists them, so that it can
    be deleted with them, or when it has not been used for long: each use renews the date of that file.

    While another process creates the same entry, this one waits, and calls `waiting` every second. The entry is written
    to a directory of its own, which is renamed when complete: a crash leaves nothing that looks like an entry, and the
    next process starts again. Where locks do not hold between machines, two may create it, and the first to finish
    wins. Raises what `make` raises, and OSError if the entry cannot be renamed.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    if corpora:
        _list(entry.with_suffix(CORPORA_SUFFIX), corpora)
    if entry.exists():
        return False
    with _lock(entry.with_suffix(LOCK_SUFFIX), waiting):
        if entry.exists():
            return False
        with tempfile.TemporaryDirectory(
            prefix=f"{MAKING}{entry.name}-", dir=entry.parent, ignore_cleanup_errors=True
        ) as temporary:
            directory = Path(temporary) / "entry"  # with the permissions of other directories
            directory.mkdir()
            make(directory)
            sync_files(path for path in directory.iterdir() if path.is_file())
            sync_directory(directory)
            try:
                directory.rename(entry)
            except OSError:
                if not entry.exists():
                    raise
                return False
    sync_directory(entry.parent)
    return True


@contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Lock a file, which is created and, in the end, removed. The lock of a process that dies is free. Does nothing on
    a file system without locks.
    """
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                time.sleep(WAIT_SECONDS)
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            if not _is_at(path, file.fileno()):  # its former owner has just removed it
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _list(path: Path, corpora: Sequence[str]) -> None:
    """Renew the date of the list of an entry's texts, or write it."""
    try:
        os.utime(path)
    except FileNotFoundError:
        path.write_text(json.dumps(corpora))


def replace_directory(source: Path, target: Path) -> None:
    """Replace the directory `target` by a copy of `source`."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
