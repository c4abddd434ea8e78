"""What recovery may change so that the next attempt does better, without changing what is computed. Pure."""

import zlib
from dataclasses import dataclass
from typing import Any

from app.core.models import Job
from trainer.spec import TrainSpec

MAX_SKIPS_IN_A_ROW = 3
SPREAD = 0.2  # of back-offs, so that a herd of jobs does not come back at one instant


@dataclass(frozen=True)
class Recovery:
    """What to change (see Job.adjustments), and the reason that stands in the history."""

    adjustments: dict[str, Any]
    reason: str
    values: dict[str, Any]


def choose_recovery(job: Job, code: str, values: dict[str, Any]) -> Recovery | None:
    """The remedy for a failure, if there is one left."""
    spec = TrainSpec.model_validate(job.spec)
    if code in ("oom_gpu", "oom_host"):
        return _smaller_micro_batch(job, spec, code, values)
    if code in ("nan_loss", "loss_diverged") and spec.on_divergence == "skip" and "step" in values:
        return _skip(job, code, values)
    return None


def _smaller_micro_batch(job: Job, spec: TrainSpec, code: str, values: dict[str, Any]) -> Recovery | None:
    """The next smaller micro-batch that divides each process's share: the global batch and its samples stay."""
    before = job.adjustments.get("per_device_batch_size", spec.per_device_batch_size)
    rows = spec.train_batch_size // spec.num_processes
    smaller = next((size for size in range(before // 2, 0, -1) if rows % size == 0), None)
    if smaller is None:
        return None
    found = {**job.adjustments, "per_device_batch_size": smaller}
    told = {"step": values.get("step", job.step + 1), "before": before, "after": smaller}
    return Recovery(found, f"{code}_retry", told)


def _skip(job: Job, code: str, values: dict[str, Any]) -> Recovery | None:
    """Pass over the step, unless as many before it were passed over already."""
    step, skipped = int(values["step"]), job.adjustments.get("skipped_steps", [])
    if all(step - n in skipped for n in range(1, MAX_SKIPS_IN_A_ROW + 1)) or step in skipped:
        return None
    return Recovery({**job.adjustments, "skipped_steps": sorted({*skipped, step})}, "step_skipped", {"step": step})


def jitter(job_id: str, fence: int) -> float:
    """A factor near 1 that belongs to an attempt."""
    return 1 + SPREAD * (zlib.crc32(f"{job_id} {fence}".encode()) % 2001 - 1000) / 1000
