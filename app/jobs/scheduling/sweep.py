"""Cleans up the data directory in small batches: deleted checkpoints, unfinished writes, unexplained files.

Each action is safe to repeat and may be interrupted anywhere. Files that neither a row nor a signature explains are
quarantined for a day first. Run directories of jobs without a row are left alone: `athanor rescan` reads those.
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
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import audit_log, db, deleted_directories, idempotency, storage, trash
from app.core.errors import PanelError
from app.core.models import HELD, BackgroundTask, Checkpoint, Corpus, Job
from app.corpora import open_uploads
from app.corpora import service as corpora
from app.jobs import deletion as jobs
from app.jobs.lifecycle import retention
from app.jobs.scheduling.cached_data import DAY, Action, idle_seconds, is_abandoned, remove_at_once, useless_entries
from trainer.run_dir import MAKING

log = logging.getLogger(__name__)

BATCH = 4  # checkpoints removed in a round, and run directories looked into
SECONDS = 1.0  # after which a round starts nothing more: jobs wait for the scheduler in the meantime
ROWS = 10_000  # of the metrics of a job, deleted in one transaction
MAX_PURGED = 20  # rows of each kind that a round deletes from the trash
UNFINISHED_SECONDS = 3600.0  # without a change, after which unfinished and unexplained files are removed
# What killed processes leave of uploads, parsed text, unpacked archives and downloads.
PARTIAL = ("corpora/*/*.bin.*", "base_models/*/.*.part", "base_models/*/.cache", "works/*/*.part")


class Sweep:
    """Iterates over the data directory, a few run directories in each round of the scheduler."""

    def __init__(self) -> None:
        self._ahead: Iterator[Path] = iter(())

    def step(self) -> int:
        """Remove a few items and return how many. I/O errors are logged, and the item is retried later."""
        actions = _deleted_checkpoints() + _deleted_directories() + _purged_jobs()
        runs = list(islice(self._ahead, BATCH))
        if not runs:  # every run directory was visited
            actions += _scan(_orphaned_directories)
            self._ahead = iter(sorted((storage.data() / "runs").glob("*/")))
        for run in runs:
            actions += _scan(partial(_run_actions, run))
        end = time.monotonic() + SECONDS
        return sum(_succeeds(action) for action in actions if time.monotonic() < end)


def _scan(look: Callable[[], list[Action]]) -> list[Action]:
    """The actions that a scan proposes; none if files vanish during the scan."""
    try:
        return look()
    except OSError as error:
        log.warning("sweep: %s", error)
        return []


def _succeeds(action: Action) -> bool:
    try:
        action()
    except OSError as error:
        log.warning("sweep: %s", error)
        return False
    return True


def _deleted_checkpoints() -> list[Action]:
    with db.transaction() as session:
        leaving = checkpoints.list_pending_deletion(session, BATCH)
    return [partial(_remove_checkpoint, checkpoint_id, path) for checkpoint_id, path in leaving]


def _remove_checkpoint(checkpoint_id: str, path: str) -> None:
    remove_at_once(storage.checkpoint(path), checkpoint_id)
    with db.transaction() as session:
        checkpoints.mark_deleted(session, checkpoint_id)
    log.info("sweep: deleted the checkpoint %s", path)


def _deleted_directories() -> list[Action]:
    with db.transaction() as session:
        return [partial(_remove_directory, path) for path in deleted_directories.list_pending(session, BATCH)]


def _purged_jobs() -> list[Action]:
    with db.transaction() as session:
        return [partial(_delete_rows, job_id) for job_id in jobs.list_purged(session, BATCH)]


def _delete_rows(job_id: str) -> None:
    """Delete some rows of a job that was deleted for good: a long job has millions."""
    with db.transaction() as session:
        is_done = jobs.delete_rows(session, job_id, ROWS)
    if is_done:
        log.info("sweep: deleted the job %s", job_id)


def _remove_directory(path: str) -> None:
    remove_at_once(storage.data() / path, path.replace("/", "-"))
    with db.transaction() as session:
        deleted_directories.record_removal(session, path)
    log.info("sweep: deleted %s", path)


def _run_actions(run: Path) -> list[Action]:
    """What to remove from a run directory: unfinished writes of ended attempts, and unexplained checkpoints."""
    with db.transaction() as session:
        job = session.get(Job, run.name)
        recorded = set(session.scalars(select(Checkpoint.path).where(Checkpoint.job_id == run.name)))
    if job is None or job.purged_at is not None:
        return []
    unfinished = [
        path
        for path in run.glob("attempts/*/step-*")
        if not (job.state in HELD and path.parent.name == str(job.fence)) and idle_seconds(path) > UNFINISHED_SECONDS
    ]
    unexplained = [
        path
        for path in run.glob("checkpoints/*/")
        if str(path.relative_to(storage.data())) not in recorded
        and not _is_last_attempts(path, job.fence)
        and idle_seconds(path) > UNFINISHED_SECONDS
    ]
    return [
        *(partial(_remove, path) for path in unfinished),
        *(partial(_set_aside, path, run.name) for path in unexplained),
    ]


def _is_last_attempts(path: Path, fence: int) -> bool:
    """Whether it was published by an attempt that may still record it, or have it recorded."""
    signed = retention.own_signature(path)
    return signed is not None and signed.fence >= fence


def _orphaned_directories() -> list[Action]:
    """What was quarantined a day ago, trash without a row, and what killed processes left unfinished."""
    data = storage.data()
    with db.transaction() as session:
        leaving = {checkpoint_id for checkpoint_id, _path in checkpoints.list_pending_deletion(session, limit=10_000)}
        base_models.forget_unfinished(session)
        corpora.delete_expired(session)
        _purge_trash(session)
        open_uploads.forget_expired(session)
        idempotency.forget_expired(session)
        audit_log.forget_expired(session)
        models, known_corpora = base_models.list_known(session), corpora.list_known(session)
        texts = set(session.scalars(select(Corpus.text_sha256)))
        states = {row.id: row.state for row in session.execute(select(BackgroundTask.id, BackgroundTask.state))}
    tasks, failed = states.keys(), {task_id for task_id, state in states.items() if state in ("failed", "cancelled")}
    old = [path for path in data.glob("quarantine/*") if time.time() - path.stat().st_mtime > DAY]
    old += [path for path in data.glob("trash/*") if path.name not in leaving]
    old += [path for pattern in PARTIAL for path in data.glob(pattern) if idle_seconds(path) > UNFINISHED_SECONDS]
    empty = [path for path in data.glob("corpora/*") if not (path / "upload").exists()]
    downloads = list(data.glob(f"corpora/*/{storage.DOWNLOAD_PART}"))
    old += [path for path in downloads if idle_seconds(path) > DAY]  # until then they can be continued
    useless = [path for path in empty if path / storage.DOWNLOAD_PART not in downloads]
    useless += [path for path in data.glob("works/*") if path.name in failed]
    old += [path for path in useless if idle_seconds(path) > UNFINISHED_SECONDS]
    entries = data.glob(f"cache/*/{MAKING}*")  # of which a vocabulary takes long
    old += [path for path in entries if idle_seconds(path) > (UNFINISHED_SECONDS if is_abandoned(path) else DAY)]
    unowned = [
        (path, whose)
        for pattern, ids, whose in (
            ("corpora/*", known_corpora, "corpus"),
            ("base_models/*", models, "model"),
            ("works/*", tasks, "task"),
        )
        for path in data.glob(pattern)
        if path.name not in ids and idle_seconds(path) > DAY
    ]
    return [
        *(partial(_remove, path) for path in old),
        *(partial(_set_aside, *unexplained) for unexplained in unowned),
        *useless_entries(texts),
    ]


def _purge_trash(session: Session) -> None:
    """Delete for good what has been in the trash for its time. What a job, a task or a deployment uses waits for the
    next time.
    """
    for table, purge in jobs.PURGES.items():
        for row in trash.list_expired(session, table, MAX_PURGED):
            with suppress(PanelError):
                purge(session, row)
        session.flush()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    log.info("sweep: %s is removed", path.relative_to(storage.data()))


def _set_aside(path: Path, whose: str) -> None:
    target = storage.data() / "quarantine" / f"{whose}-{path.name}"
    target.parent.mkdir(exist_ok=True)
    os.utime(path)  # the day starts now
    path.rename(target)
    log.warning("sweep: %s is unexplained: quarantined for a day", path.relative_to(storage.data()))
