"""Directories that are computed once and shared by all runs, found by the hash of what they were made from."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.run_dir import sync_directory


def cache_key(**parts: Any) -> str:
    """The name of a cache entry: a hash of everything that decides its content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def get_or_create(entry: Path, make: Callable[[Path], None]) -> bool:
    """Make a cache entry unless it is there, and say whether this call made it.

    It is written beside and renamed when whole, so two runs may do it at once: the second keeps the first one's.
    """
    if entry.exists():
        return False
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=entry.parent) as temporary:
        made = Path(temporary) / "entry"
        made.mkdir()
        make(made)
        try:
            made.rename(entry)
        except OSError:
            if not entry.exists():
                raise
            return False
    sync_directory(entry.parent)
    return True


def replace_directory(source: Path, target: Path) -> None:
    """Replace a directory by a copy of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
