"""Which checkpoints of a job are deleted, and which ones on disk without a row are recorded."""

import json
import math
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.checkpoints import retention_reasons, signature
from app.checkpoints import service as checkpoints
from app.checkpoints.signature import Signed
from app.core import storage
from app.core.models import Checkpoint, Job
from trainer.run_dir import MANIFEST, RunDir


def choose(session: Session, job: Job) -> None:
    """Mark the checkpoints of a locked job that have no reason to stay; a sweep removes their files."""
    if job.spec.save_total_limit is None:
        return
    reasons = retention_reasons.reasons(session, [job.id])
    surplus = [checkpoint_id for checkpoint_id, why in reasons.items() if not why]
    if surplus:
        checkpoints.mark_for_deletion(session, surplus)


def record_unrecorded(session: Session, job: Job) -> bool:
    """Record what the last attempt of a locked job published and could not record; returns whether any is newer.

    Those of earlier attempts are left alone: their steps may have been repeated since. So are those beyond the last
    recorded step, as after the database was restored from a backup: the curve would have a gap.
    """
    newest = session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job.id))
    unrecorded = [
        (directory, signed) for directory, signed in find_unrecorded(session, job.id) if _is_known(job, signed)
    ]
    for directory, signed in unrecorded:
        record(session, job, directory, signed)
    if unrecorded:
        choose(session, job)
    return any(newest is None or signed.step > newest for _directory, signed in unrecorded)


def _is_known(job: Job, signed: Signed) -> bool:
    return signed.fence == job.fence and signed.step <= job.step


def find_unrecorded(session: Session, job_id: str) -> list[tuple[Path, Signed]]:
    """Published checkpoints of a job, signed for it under their names, that have no row; oldest first."""
    recorded_paths = set(session.scalars(select(Checkpoint.path).where(Checkpoint.job_id == job_id)))
    unrecorded = []
    for directory in (storage.run(job_id) / "checkpoints").glob("step-*"):
        if str(directory.relative_to(storage.data())) not in recorded_paths:
            signed = own_signature(directory)
            if signed is not None:
                unrecorded.append((directory, signed))
    return sorted(unrecorded, key=lambda pair: (pair[1].step, pair[1].fence))


def own_signature(directory: Path) -> Signed | None:
    """The signature of a directory below runs/<job>/checkpoints, if it matches its place and name."""
    try:
        signed = signature.about(directory)
    except ValueError:
        return None
    job_id = directory.parent.parent.name
    named = RunDir(storage.run(job_id)).checkpoint_path(signed.step, signed.fence)
    return signed if signed.job_id == job_id and named == directory else None


def record(session: Session, job: Job, directory: Path, signed: Signed) -> Checkpoint:
    """Insert the row of a published checkpoint."""
    return checkpoints.record(
        session,
        owner_id=job.owner_id,
        job_id=job.id,
        step=signed.step,
        fence=signed.fence,
        path=str(directory.relative_to(storage.data())),
        manifest=json.loads((directory / MANIFEST).read_bytes()),
        metrics=_metrics(directory),
    )


def _metrics(directory: Path) -> dict[str, Any]:
    try:
        metrics = json.loads((directory / "trainer_state.json").read_bytes())["metrics"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not isinstance(metrics, dict):
        return {}
    return {name: value for name, value in metrics.items() if isinstance(value, float) and math.isfinite(value)}
