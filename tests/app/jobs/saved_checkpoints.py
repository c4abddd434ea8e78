"""Signed checkpoints on the disk for the tests of jobs, small, as an attempt leaves them."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from app.checkpoints import signature
from app.core import db, storage
from app.core.model_base import new_id
from app.core.models import Checkpoint, Job
from app.jobs.attempts import attempts
from tests.app.jobs import factories
from tests.users import Person
from trainer import run_dir
from trainer.run_dir import RunDir


def on_disk(job_id: str, step: int, fence: int, *, owner_id: str | None = None, loss: float = 2.0) -> Path:
    """A signed checkpoint in its place, without a row."""
    directory = RunDir(storage.run(job_id)).checkpoint_path(step, fence)
    unsigned(directory, step, loss)
    owner_id = owner_id or factories.row(job_id).owner_id
    signature.sign(directory, job_id=job_id, owner_id=owner_id, fence=fence, step=step)
    return directory


def unsigned(directory: Path, step: int, loss: float = 2.0) -> None:
    """Files and manifest of a checkpoint."""
    (directory / "resume").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(bytes(range(64)))
    (directory / "resume" / "optimizer-0.safetensors").write_bytes(b"moments")
    state = {"step": step, "metrics": {"loss": loss + 0.5, "eval_loss": loss}}
    (directory / "trainer_state.json").write_text(json.dumps(state))
    run_dir.write_manifest(directory, {"step": step})


def recorded(job_id: str, step: int, fence: int, *, loss: float = 2.0) -> Checkpoint:
    """The same with its row, as an attempt that holds the job records it."""
    directory = on_disk(job_id, step, fence, loss=loss)
    given: dict[str, Any] = {"manifest": run_dir.verify(directory), "metrics": {"eval_loss": loss}}
    with db.transaction() as session:
        path = str(directory.relative_to(storage.data()))
        row = attempts.record_checkpoint(session, job_id=job_id, fence=fence, step=step, path=path, **given)
    assert row is not None
    return row


def add_copies(checkpoint_id: str, owner: Person, count: int) -> None:
    """Add rows of so many more checkpoints, without files, each of a job of its own: the second half started from the
    first half.
    """
    with db.transaction() as session:
        checkpoint = session.get_one(Checkpoint, checkpoint_id)
        job = session.get_one(Job, checkpoint.job_id)
        checkpoints, jobs = _copies(checkpoint, owner, count), _copies(job, owner, count)
        for number, (of_job, row) in enumerate(zip(jobs, checkpoints, strict=True)):
            row["job_id"] = of_job["id"]
            if number >= count // 2:
                base = checkpoints[number - count // 2]["id"]
                of_job["spec"] = job.spec.model_copy(update={"base_model": base})
        session.execute(insert(Job), jobs)
        session.execute(insert(Checkpoint), checkpoints)


def _copies(row: Job | Checkpoint, owner: Person, count: int) -> list[dict[str, Any]]:
    columns = {column.key: getattr(row, column.key) for column in row.__table__.columns if column.computed is None}
    return [{**columns, "id": new_id(), "owner_id": owner.id} for _number in range(count)]
