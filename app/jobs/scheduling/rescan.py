"""Rebuilds rows of jobs and checkpoints from signed files on disk, after a loss of the database."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.checkpoints import signature
from app.checkpoints.signature import Signed
from app.core import db, deleted_directories, storage
from app.core.account_models import User
from app.core.i18n import _
from app.core.models import Checkpoint, Job
from app.jobs.lifecycle import retention
from app.jobs.lifecycle.state import add_history
from app.jobs.service import PRIORITIES
from trainer import events
from trainer.run_dir import RunDir
from trainer.spec import TrainSpec

JOB_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{16}")


@dataclass(frozen=True)
class SignedCheckpoint:
    """A signed checkpoint in its place. `damage` names the file that differs, if one does."""

    directory: Path
    signed: Signed
    damage: str | None


def rescan() -> Iterator[str]:
    """Insert rows for jobs and checkpoints on disk that have none; accept damaged checkpoints that are intact again.

    Yields one line of text per result. Safe to repeat.
    """
    runs = sorted((storage.data() / "runs").glob("*/"))
    with db.transaction() as session:
        owner = session.scalar(select(User).where(User.role == "owner").order_by(User.id))
        recorded = set(session.scalars(select(Job.id)))
        deleted = {run.name for run in runs if deleted_directories.is_noted(session, run)}
    if owner is None:
        yield _("Nobody has an account yet. Open the link that `athanor up` prints, then try again.")
        return
    num_jobs = num_checkpoints = 0
    for run in runs:
        if run.name in recorded | deleted or JOB_ID.fullmatch(run.name) is None:
            continue
        restorable, foreign = _verify_run(run)
        yield from (_("Skipped {path}: {why}.", path=_relative(path), why=why) for path, why in foreign)
        if not restorable:
            continue
        try:
            name, to = _restore(run, restorable, owner.id)
        except (OSError, ValueError):
            yield _("Skipped {path}: {why}.", path=_relative(run), why="spec.json")
            continue
        yield _("Job {id} “{name}” of {owner}, checkpoints: {n}", id=run.name, name=name, owner=to, n=len(restorable))
        for checkpoint in restorable:
            yield _result_line(checkpoint)
        num_jobs, num_checkpoints = num_jobs + 1, num_checkpoints + len(restorable)
    yield from _verify_again()
    yield _("Jobs found: {jobs}; checkpoints: {checkpoints}.", jobs=num_jobs, checkpoints=num_checkpoints)


def _verify_again() -> Iterator[str]:
    """Accept damaged checkpoints that are intact again: files return from a backup, or with a mount."""
    with db.transaction() as session:
        damaged = session.scalars(select(Checkpoint).where(Checkpoint.state == "corrupt").order_by(Checkpoint.id)).all()
    for row in damaged:
        directory = storage.checkpoint(row.path)
        try:
            signature.verify(directory)
        except (OSError, ValueError):
            continue
        if retention.own_signature(directory) is not None:
            with db.transaction() as session:
                checkpoints.mark_ready(session, row.id)
            yield _("Job {id}, step {step}: intact again, no longer marked as damaged", id=row.job_id, step=row.step)


def _verify_run(run: Path) -> tuple[list[SignedCheckpoint], list[tuple[Path, str]]]:
    """Verify every byte of the checkpoints in a run directory; returns its own, and the others with a reason."""
    restorable, foreign = [], []
    for directory in sorted(run.glob("checkpoints/step-*/")):
        signed = retention.own_signature(directory)
        try:
            signature.verify(directory)
            damage = None
        except ValueError as error:
            damage = str(error)
        if signed is not None:
            restorable.append(SignedCheckpoint(directory, signed, damage))
        else:
            foreign.append((directory, damage or _("it is signed for another place")))
    return sorted(restorable, key=lambda checkpoint: (checkpoint.signed.step, checkpoint.signed.fence)), foreign


def _restore(run: Path, restorable: list[SignedCheckpoint], owner_id: str) -> tuple[str, str]:
    """Insert a job and its checkpoints, all or none; returns the names of the job and of its owner."""
    spec = RunDir(run).spec()
    with db.transaction() as session:
        to = session.get(User, restorable[0].signed.owner_id) or session.get_one(User, owner_id)
        job = _insert(session, run.name, spec, restorable, to.id)
        for checkpoint in restorable:
            row = retention.record(session, job, checkpoint.directory, checkpoint.signed)
            row.state = "ready" if checkpoint.damage is None else "corrupt"
        return spec.name, to.name


def _insert(session: Session, job_id: str, spec: TrainSpec, restorable: list[SignedCheckpoint], owner_id: str) -> Job:
    job = Job(
        id=job_id,
        owner_id=owner_id,
        name=spec.name,
        recipe=spec.recipe,
        spec=spec,
        spec_sha256=spec.sha256(),
        body_sha256="",
        desired="cancel",
        state="cancelled",
        fence=max(checkpoint.signed.fence for checkpoint in restorable),
        step=max(checkpoint.signed.step for checkpoint in restorable),
        max_steps=spec.max_steps or _counted_steps(RunDir(storage.run(job_id))),
        priority=PRIORITIES[spec.priority],
        finished_at=func.now(),
    )
    session.add(job)
    session.flush()
    add_history(session, job, None, "user", "rescanned", n=len(restorable))
    return job


def _counted_steps(run: RunDir) -> int | None:
    """The steps that an attempt has counted for the epochs of its spec, as its journal says; None without one."""
    for path in sorted(run.path.glob("attempts/*/events.jsonl")):
        with suppress(OSError, ValueError):  # a damaged journal
            for event, _offset in events.read(path, 0):
                if isinstance(event, events.DataEvent):
                    return event.max_steps
    return None


def _result_line(checkpoint: SignedCheckpoint) -> str:
    if checkpoint.damage is None:
        return _("  step {step}: intact", step=checkpoint.signed.step)
    return _("  step {step}: damaged, {why}", step=checkpoint.signed.step, why=checkpoint.damage)


def _relative(path: Path) -> str:
    return str(path.relative_to(storage.data()))
