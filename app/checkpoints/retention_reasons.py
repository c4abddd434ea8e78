"""Why a checkpoint is kept: among the newest, best, pinned, one in every n, the origin of another job, or deployed."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, or_, select
from sqlalchemy.orm import Session

from app.checkpoints.conditions import usable_of
from app.core.deployment_models import Deployment
from app.core.models import TERMINAL, Checkpoint, Job
from trainer.spec import TrainSpec

LEAST = 2  # good ones a job always keeps: should the newest turn out damaged, there is another
REASONS = ("newest", "best", "pinned", "regular", "origin", "deployed")


def reasons(session: Session, job_ids: Iterable[str]) -> dict[str, list[str]]:
    """The good checkpoints of these jobs, each with why it is kept; one without a reason may go."""
    columns = (Checkpoint.id, Checkpoint.job_id, Checkpoint.step, Checkpoint.metrics, Checkpoint.pinned)
    good = select(*columns).where(usable_of(set(job_ids)))
    rows = session.execute(good.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc())).all()
    specs = session.execute(select(Job.id, Job.spec).where(Job.id.in_({row.job_id for row in rows})))
    ids = [row.id for row in rows]
    started_from = Job.spec["base_model"].as_string()
    needed = select(Job.resume_from_id, started_from).where(
        or_(Job.resume_from_id.in_(ids), started_from.in_(ids)), Job.state.not_in(TERMINAL)
    )
    origins = {checkpoint_id for pair in session.execute(needed) for checkpoint_id in pair}
    deployed = set(session.scalars(select(Deployment.model_id).where(Deployment.model_id.in_(ids))))
    reasons: dict[str, list[str]] = {}
    for job_id, spec in specs:
        own = [row for row in rows if row.job_id == job_id]
        reasons |= _of_job(own, spec, origins, deployed)
    return reasons


def _of_job(
    rows: Sequence[Row[*tuple[Any, ...]]], spec: TrainSpec, origins: set[str | None], deployed: set[str]
) -> dict[str, list[str]]:
    """`rows` are all good ones of a job, newest first."""
    newest = {row.id for row in rows[: max(LEAST, spec.save_total_limit or LEAST)]}
    measured = [row for row in rows if math.isfinite(_loss(row))]
    best = min(measured, key=_loss).id if measured else None
    regular = spec.save_steps * spec.keep_every
    return {
        row.id: [
            word
            for word, holds in {
                "newest": row.id in newest,
                "best": row.id == best,
                "pinned": row.pinned,
                "regular": row.step % regular == 0,
                "origin": row.id in origins,
                "deployed": row.id in deployed,
            }.items()
            if holds
        ]
        for row in rows
    }


def _loss(row: Row[Any]) -> float:
    value = row.metrics.get("eval_loss")
    return value if isinstance(value, int | float) else math.inf
