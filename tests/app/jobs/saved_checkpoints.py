"""Signed checkpoints on the disk for the tests of jobs, small, as an attempt leaves them."""

import json
from pathlib import Path
from typing import Any

from app.checkpoints import signature
from app.core import db, storage
from app.core.models import Checkpoint
from app.jobs.attempts import attempts
from tests.app.jobs import factories
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
