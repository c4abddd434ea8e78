"""Publishes the checkpoints and the tokenizer of an attempt."""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.checkpoints import signature
from app.core import fault_injection, storage
from app.jobs.attempts import attempts
from app.jobs.attempts.attempts import Assignment
from trainer.events import CheckpointEvent, TokenizerEvent
from trainer.run_dir import RunDir, publish, sync_directory
from worker.supervisor.database import DatabaseLink

log = logging.getLogger(__name__)


@dataclass
class _Pending:
    event: CheckpointEvent
    published: Future[dict[str, Any]]


class Publisher:
    """Publishes checkpoints in a thread, because hashing gigabytes takes longer than a lease."""

    def __init__(self, run_dir: RunDir, work: Assignment, fence: int) -> None:
        self._run_dir, self._work, self._fence = run_dir, work, fence
        self._hands = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._pending: list[_Pending] = []
        self._tokenizer: TokenizerEvent | None = None
        self.unpublished: tuple[int, str] | None = None

    def take_checkpoint(self, event: CheckpointEvent) -> None:
        """Start publishing a checkpoint that the trainer has written."""
        source = self._run_dir.path / event.path
        target = self._run_dir.checkpoint_path(event.step, self._fence)
        self._pending.append(_Pending(event, self._hands.submit(self._publish, event.step, source, target)))

    def _publish(self, step: int, source: Path, target: Path) -> dict[str, Any]:
        """Sign, verify, and move into place by one rename. An existing target was signed before."""
        if not target.exists():
            work = self._work
            signature.sign(source, job_id=work.job_id, owner_id=work.owner_id, fence=self._fence, step=step)
        return publish(source, target)

    def take_tokenizer(self, event: TokenizerEvent) -> None:
        """Remember a newly trained tokenizer to be recorded."""
        if event.trained:
            self._tokenizer = event

    @property
    def is_busy(self) -> bool:
        """Whether something still has to be moved into place or recorded in the database."""
        return bool(self._pending) or self._tokenizer is not None

    def record_published(self, link: DatabaseLink) -> bool:
        """Record what is in place by now; returns whether anything was. Raises what DatabaseLink.call raises."""
        is_new = False
        if (tokenizer := self._tokenizer) is not None:
            link.call(lambda session: self._record_tokenizer(session, tokenizer))
            self._tokenizer, is_new = None, True
        while self._pending and self._pending[0].published.done():
            self._record_checkpoint(link, self._pending[0])
            del self._pending[0]
            is_new = True
        return is_new

    def close(self) -> None:
        """Stop the thread; checkpoints that it has not started are not published."""
        self._hands.shutdown(cancel_futures=True)

    def _record_checkpoint(self, link: DatabaseLink, pending: _Pending) -> None:
        event = pending.event
        try:
            manifest = pending.published.result()
        except (OSError, ValueError) as error:
            log.error("the checkpoint of step %d cannot be published: %s", event.step, error)
            self.unpublished = (event.step, _without_paths(error))
            return
        fault_injection.reach("published")
        path = self._run_dir.checkpoint_path(event.step, self._fence).relative_to(storage.data())
        link.call(
            lambda session: attempts.record_checkpoint(
                session,
                job_id=self._work.job_id,
                fence=self._fence,
                step=event.step,
                path=str(path),
                manifest=manifest,
                metrics=event.metrics,
            )
        )
        fault_injection.reach("recorded")
        self.unpublished = None
        log.info("the checkpoint of step %d is published", event.step)

    def _record_tokenizer(self, session: Session, event: TokenizerEvent) -> None:
        tokenizer_id = attempts.record_tokenizer(
            session, job_id=self._work.job_id, fence=self._fence, event=event, work=self._work
        )
        copy_directory(self._run_dir.path / event.path, storage.tokenizer(tokenizer_id))


def copy_directory(source: Path, target: Path) -> None:
    """Copy a small directory atomically, by a rename at the end. An existing target is left as it is."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(target)
    sync_directory(target.parent)


def _without_paths(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)
