"""A content-addressed cache of directories, shared by all runs: an entry is named by the hash of its inputs."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainer.run_dir import CORPORA_SUFFIX, sync_directory


def cache_key(**parts: Any) -> str:
    """The name of a cache entry: SHA-256 of everything that determines its content, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def get_or_create(entry: Path, make: Callable[[Path], None], corpora: Sequence[str] = ()) -> bool:
    """Create a cache entry unless it exists. Returns whether this call created it.

    `corpora` are the SHA-256 of the texts that it contains parts of. A file beside the entry lists them, so that it can
    be deleted with them, or when it has not been used for long: each use renews the date of that file.

    The entry is written to a temporary directory and renamed when complete, so two runs may create it at once: the
    first to finish wins. Raises what `make` raises, and OSError if the entry cannot be renamed.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    if corpora:
        _list(entry.with_suffix(CORPORA_SUFFIX), corpora)
    if entry.exists():
        return False
    with tempfile.TemporaryDirectory(prefix="making-", dir=entry.parent) as temporary:
        directory = Path(temporary) / "entry"
        directory.mkdir()
        make(directory)
        try:
            directory.rename(entry)
        except OSError:
            if not entry.exists():
                raise
            return False
    sync_directory(entry.parent)
    return True


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
