"""Removes what nobody needs from the data directory: let-go checkpoints, torn writes, strangers. In small batches.

Each act is safe to repeat and may be cut off anywhere. What no row and no signature explains is set aside for a day
first. Run directories of jobs that the database does not know are left alone: `athanor rescan` reads those.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import select

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import db, storage
from app.core.models import Checkpoint, Job
from app.jobs.lifecycle import retention
from app.jobs.lifecycle.transitions import HELD

log = logging.getLogger(__name__)

BATCH = 4  # checkpoints removed in a round, and run directories looked into
SECONDS = 1.0  # after which nothing more is begun in a round: jobs wait for the scheduler meanwhile
TORN_SECONDS = 3600.0  # without a change, after which what is over or unknown is taken away
DAY = 24 * 3600.0

Act = Callable[[], None]


class Sweep:
    """Goes round the data directory, a little in each round of the scheduler."""

    def __init__(self) -> None:
        self._ahead: Iterator[Path] = iter(())

    def step(self) -> int:
        """Take a little away and say how many things. What the disk refuses is logged and tried again later."""
        acts = _deleted_checkpoints()
        runs = list(islice(self._ahead, BATCH))
        if not runs:  # once round
            acts += _seen(_orphaned_directories)
            self._ahead = iter(sorted((storage.data() / "runs").glob("*/")))
        for run in runs:
            acts += _seen(partial(_of_run, run))
        end = time.monotonic() + SECONDS
        return sum(_done(act) for act in acts if time.monotonic() < end)


def _seen(look: Callable[[], list[Act]]) -> list[Act]:
    """What there is to do in a place, where files may vanish while one looks at them."""
    try:
        return look()
    except OSError as error:
        log.warning("sweep: %s", error)
        return []


def _done(act: Act) -> bool:
    try:
        act()
    except OSError as error:
        log.warning("sweep: %s", error)
        return False
    return True


def _deleted_checkpoints() -> list[Act]:
    with db.transaction() as session:
        leaving = checkpoints.list_pending_deletion(session, BATCH)
    return [partial(_remove_checkpoint, checkpoint_id, path) for checkpoint_id, path in leaving]


def _remove_checkpoint(checkpoint_id: str, path: str) -> None:
    """Away from its place in one rename, so that nobody ever finds a half of it there; then for good."""
    directory, trash = storage.checkpoint(path), storage.data() / "trash" / checkpoint_id
    trash.parent.mkdir(exist_ok=True)
    if directory.exists():
        directory.rename(trash)
    if trash.exists():
        shutil.rmtree(trash)
    with db.transaction() as session:
        checkpoints.mark_deleted(session, checkpoint_id)
    log.info("sweep: the checkpoint %s is deleted", path)


def _of_run(run: Path) -> list[Act]:
    """What lies in a run directory and should not: torn writes of attempts that are over, and strangers."""
    with db.transaction() as session:
        job = session.get(Job, run.name)
        known = set(session.scalars(select(Checkpoint.path).where(Checkpoint.job_id == run.name)))
    if job is None:
        return []
    torn = [
        path
        for path in run.glob("attempts/*/step-*")
        if not (job.state in HELD and path.parent.name == str(job.fence)) and _idle_seconds(path) > TORN_SECONDS
    ]
    strangers = [
        path
        for path in run.glob("checkpoints/*/")
        if str(path.relative_to(storage.data())) not in known
        and not _is_last_attempts(path, job.fence)
        and _idle_seconds(path) > TORN_SECONDS
    ]
    return [*(partial(_remove, path) for path in torn), *(partial(_set_aside, path, run.name) for path in strangers)]


def _is_last_attempts(path: Path, fence: int) -> bool:
    """Whether it was published by an attempt that may still record it, or have it recorded."""
    signed = retention.own_signature(path)
    return signed is not None and signed.fence >= fence


def _orphaned_directories() -> list[Act]:
    """What was set aside a day ago, what is in the trash without a row, what killed processes left half made."""
    data = storage.data()
    with db.transaction() as session:
        leaving = {checkpoint_id for checkpoint_id, _path in checkpoints.list_pending_deletion(session, limit=10_000)}
        base_models.forget_unfinished(session)
        known = base_models.list_known(session)
    old = [path for path in data.glob("quarantine/*") if time.time() - path.stat().st_mtime > DAY]
    old += [path for path in data.glob("trash/*") if path.name not in leaving]
    unowned = [path for path in data.glob("base_models/*") if path.name not in known]
    half_made = (*data.glob("cache/*/making-*"), *data.glob("corpora/*/upload.part"))
    old += [path for path in half_made if _idle_seconds(path) > DAY]
    unowned = [path for path in unowned if _idle_seconds(path) > DAY]
    return [*(partial(_remove, path) for path in old), *(partial(_set_aside, path, "model") for path in unowned)]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    log.info("sweep: %s is removed", path.relative_to(storage.data()))


def _set_aside(path: Path, whose: str) -> None:
    target = storage.data() / "quarantine" / f"{whose}-{path.name}"
    target.parent.mkdir(exist_ok=True)
    os.utime(path)  # its day begins now
    path.rename(target)
    log.warning("sweep: nothing explains %s: it is in quarantine for a day", path.relative_to(storage.data()))


def _idle_seconds(path: Path) -> float:
    """Since something in there changed last."""
    changed = [path.stat().st_mtime]
    for inner in path.rglob("*"):
        with suppress(FileNotFoundError):  # somebody works in there
            changed.append(inner.stat().st_mtime)
    return time.time() - max(changed)
