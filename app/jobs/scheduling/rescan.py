"""After a loss of the database: jobs and checkpoints found again on the disk, by what was signed there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.checkpoints import signature
from app.checkpoints.signature import Signed
from app.core import db, storage
from app.core.i18n import _
from app.core.models import Checkpoint, Job, User
from app.jobs.lifecycle import retention
from app.jobs.lifecycle.state import add_history
from app.jobs.service import PRIORITIES
from trainer.run_dir import RunDir
from trainer.spec import TrainSpec

JOB_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{16}")


@dataclass(frozen=True)
class Found:
    """A signed checkpoint in its place. `wrong` names the file that differs, if one does."""

    directory: Path
    signed: Signed
    wrong: str | None


def rescan() -> Iterator[str]:
    """Give rows to jobs and checkpoints that lie on the disk without any, and trust again what was mended.

    Tells what it found. Safe to repeat.
    """
    with db.transaction() as session:
        owner = session.scalar(select(User).where(User.role == "owner").order_by(User.id))
        known = set(session.scalars(select(Job.id)))
    if owner is None:
        yield _("Nobody has an account yet. Open the link that `athanor up` prints, then try again.")
        return
    num_jobs = num_checkpoints = 0
    for run in sorted((storage.data() / "runs").glob("*/")):
        if run.name in known or JOB_ID.fullmatch(run.name) is None:
            continue
        found, strange = _look(run)
        yield from (_("{path} is passed over: {why}.", path=_shown(path), why=why) for path, why in strange)
        if not found:
            continue
        try:
            name, to = _restore(run, found, owner.id)
        except (OSError, ValueError):
            yield _("{path} is passed over: {why}.", path=_shown(run), why="spec.json")
            continue
        yield _("Job {id} “{name}” of {owner}, checkpoints: {n}", id=run.name, name=name, owner=to, n=len(found))
        for one in found:
            yield _said(one)
        num_jobs, num_checkpoints = num_jobs + 1, num_checkpoints + len(found)
    yield from _verify_again()
    yield _("Jobs found: {jobs}; checkpoints: {checkpoints}.", jobs=num_jobs, checkpoints=num_checkpoints)


def _verify_again() -> Iterator[str]:
    """Trust again what was found damaged and is whole now: files come back from a backup, or with a lost mount."""
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
            yield _("Job {id}, step {step}: whole again, no longer marked as damaged", id=row.job_id, step=row.step)


def _look(run: Path) -> tuple[list[Found], list[tuple[Path, str]]]:
    """What a run directory holds, read through to the last byte: what is signed for it, and what is not and why."""
    found, strange = [], []
    for directory in sorted(run.glob("checkpoints/step-*/")):
        signed = retention.own_signature(directory)
        try:
            signature.verify(directory)
            wrong = None
        except ValueError as error:
            wrong = str(error)
        if signed is not None:
            found.append(Found(directory, signed, wrong))
        else:
            strange.append((directory, wrong or _("it is signed for another place")))
    return sorted(found, key=lambda one: (one.signed.step, one.signed.fence)), strange


def _restore(run: Path, found: list[Found], owner_id: str) -> tuple[str, str]:
    """Insert a job and its checkpoints, all or none; answers its name and that of whom it belongs to now."""
    spec = RunDir(run).spec()
    with db.transaction() as session:
        to = session.get(User, found[0].signed.owner_id) or session.get_one(User, owner_id)
        job = _insert(session, run.name, spec, found, to.id)
        for one in found:
            row = retention.record(session, job, one.directory, one.signed)
            row.state = "ready" if one.wrong is None else "corrupt"
        return spec.name, to.name


def _insert(session: Session, job_id: str, spec: TrainSpec, found: list[Found], owner_id: str) -> Job:
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
        fence=max(one.signed.fence for one in found),
        step=max(one.signed.step for one in found),
        max_steps=spec.max_steps,
        priority=PRIORITIES[spec.priority],
        finished_at=func.now(),
    )
    session.add(job)
    session.flush()
    add_history(session, job, None, "user", "rescanned", n=len(found))
    return job


def _said(one: Found) -> str:
    if one.wrong is None:
        return _("  step {step}: whole", step=one.signed.step)
    return _("  step {step}: damaged, {why}", step=one.signed.step, why=one.wrong)


def _shown(path: Path) -> str:
    return str(path.relative_to(storage.data()))
