"""The cache of tokens and vocabularies that jobs share: what it takes, and which entries may be deleted when.

What nobody needs any more goes by itself (`useless_entries`); what no job or task that waits or runs needs can be
deleted at any time (`delete_unneeded`): one that needs it again makes the same again.
"""

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from sqlalchemy import select

from app.core import background_tasks, db, disk, storage
from app.core.models import TERMINAL, Corpus, Job
from trainer.run_dir import CORPORA_SUFFIX, LOCK_SUFFIX, MAKING

log = logging.getLogger(__name__)

DAY = 24 * 3600.0
CACHE_SECONDS, CACHE_SECONDS_ON_LOW_DISK = 30 * DAY, DAY  # without a use, after which tokens and vocabularies go
RECENT_SECONDS = 60.0  # after a use, in which an entry is not deleted at somebody's wish

Action = Callable[[], None]


@dataclass(frozen=True)
class CacheUsage:
    """What the cache takes of the disk, and how much of that no unfinished job or task needs."""

    num_bytes: int
    num_unneeded_bytes: int


def usage() -> CacheUsage:
    """What the cache takes now."""
    return CacheUsage(_num_bytes(storage.cache()), sum(_num_bytes(_entry(path)) for path in _unneeded()))


@lru_cache(maxsize=1)
def usage_in(minute: int) -> CacheUsage:
    """What the cache takes, looked at once in a minute: that reads all its files, and open pages ask every 5 s."""
    return usage()


def recent_usage() -> CacheUsage:
    """What the cache took at most a minute ago."""
    return usage_in(int(time.monotonic() // 60))


def delete_unneeded() -> None:
    """Delete what no unfinished job or task needs. What cannot be deleted, as another one deletes it, stays."""
    for path in _unneeded():
        try:
            _remove(path, RECENT_SECONDS, "nothing that waits or runs needs it")
        except OSError as error:
            log.warning("%s was not deleted: %s", path.name, error)
    usage_in.cache_clear()


def useless_entries(texts: set[str | None]) -> list[Action]:
    """Vocabularies and tokens made from a text that is no corpus any more, which no unfinished job uses, and those that
    no job has used for long, as actions that delete them.
    """
    lifetime = CACHE_SECONDS_ON_LOW_DISK if disk.is_low() else CACHE_SECONDS
    lists = _lists()
    orphaned = [path for path, listed in lists.items() if not texts.issuperset(listed)]
    idle = [path for path in lists if path not in orphaned and idle_seconds(path) > lifetime]
    used = _needed_texts() if idle else set()
    return [
        *(partial(_remove, path, 0.0, "its corpus was deleted") for path in orphaned),
        *(
            partial(_remove, path, lifetime, "no job has used it for long")
            for path in idle
            if used.isdisjoint(lists[path])
        ),
    ]


def is_abandoned(unfinished: Path) -> bool:
    """Whether the process that was creating an entry of the cache in this directory has ended: its lock is free."""
    entry = unfinished.name.removeprefix(MAKING).rpartition("-")[0]
    try:
        with unfinished.with_name(f"{entry}{LOCK_SUFFIX}").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is locked, there is none, or it cannot be locked
        return False
    return True


def remove_at_once(directory: Path, name: str) -> None:
    """Move a directory to trash/ in one rename, so that it is never seen half deleted; then delete it."""
    leaving = storage.data() / "trash" / name
    leaving.parent.mkdir(exist_ok=True)
    if leaving.exists():  # from a removal that was interrupted
        shutil.rmtree(leaving)
    if directory.exists():
        directory.rename(leaving)
        shutil.rmtree(leaving)


def idle_seconds(path: Path) -> float:
    """Seconds since anything in a directory changed; 0 for one that is gone."""
    try:
        changed = [path.stat().st_mtime]
    except FileNotFoundError:
        return 0
    for inner in path.rglob("*"):
        with suppress(FileNotFoundError):  # removed during the walk
            changed.append(inner.stat().st_mtime)
    return time.time() - max(changed)


def _needed_texts() -> set[str | None]:
    """The SHA-256 of the texts that unfinished jobs train on or are validated on, or that open tasks read."""
    with db.transaction() as session:
        specs = session.scalars(select(Job.spec).where(Job.state.not_in(TERMINAL)))
        ids = {corpus_id for spec in specs for corpus_id in (*spec.corpora, *spec.validation_corpora)}
        ids |= background_tasks.corpora_of_open_tasks(session)
        return set(session.scalars(select(Corpus.text_sha256).where(Corpus.id.in_(ids))))


def _unneeded() -> list[Path]:
    lists, needed = _lists(), _needed_texts()
    return [path for path, listed in lists.items() if needed.isdisjoint(listed)]


def _lists() -> dict[Path, list[str]]:
    """The list of texts beside each entry, by its path."""
    return {path: _read_list(path) for path in storage.cache().glob(f"*/*{CORPORA_SUFFIX}")}


def _read_list(path: Path) -> list[str]:
    """The texts that an entry was made from; none while the list is being written."""
    try:
        return list(json.loads(path.read_text()))
    except (ValueError, FileNotFoundError):
        return []


def _entry(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(CORPORA_SUFFIX))


def _remove(path: Path, min_age: float, why: str) -> None:
    if not path.exists() or (min_age and idle_seconds(path) < min_age):  # it has been used since the look
        return
    entry = _entry(path)
    path.unlink(missing_ok=True)  # first: whoever makes the entry anew writes another list
    for unfinished in filter(is_abandoned, list(entry.parent.glob(f"{MAKING}{entry.name}-*"))):
        shutil.rmtree(unfinished)
    remove_at_once(entry, f"cache-{entry.name}")
    log.info("deleted %s: %s", entry.relative_to(storage.data()), why)


def _num_bytes(directory: Path) -> int:
    """The size of all files in a directory."""
    return sum(
        storage.num_bytes(Path(folder, name)) for folder, _folders, names in os.walk(directory) for name in names
    )
