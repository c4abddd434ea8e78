"""What recovery may change so that the next attempt does better, without changing what is computed. Pure."""

import zlib
from dataclasses import dataclass
from typing import Any

from app.core.json_shapes import Adjustments
from app.core.models import Job
from trainer.spec import TrainSpec

MAX_SKIPS_IN_A_ROW = 3
SPREAD = 0.2  # of back-offs, so that a herd of jobs does not come back at one instant


@dataclass(frozen=True)
class Recovery:
    """The adjustments of the next attempt, and the reason with its values for the history."""

    adjustments: Adjustments
    reason: str
    values: dict[str, Any]


def choose_recovery(job: Job, code: str, values: dict[str, Any]) -> Recovery | None:
    """The remedy for a failure, if there is one left."""
    spec = job.spec
    if code in ("oom_gpu", "oom_host"):
        return _smaller_micro_batch(job, spec, code, values)
    if code in ("nan_loss", "loss_diverged") and spec.on_divergence == "skip" and "step" in values:
        return _skip(job, code, values)
    return None


def _smaller_micro_batch(job: Job, spec: TrainSpec, code: str, values: dict[str, Any]) -> Recovery | None:
    """The next smaller micro-batch that divides each process's share: the global batch and its samples stay."""
    before = job.adjustments.per_device_batch_size or spec.per_device_batch_size
    rows = spec.train_batch_size // spec.num_processes
    smaller = next((size for size in range(before // 2, 0, -1) if rows % size == 0), None)
    if smaller is None:
        return None
    adjustments = job.adjustments.model_copy(update={"per_device_batch_size": smaller})
    reason_values = {"step": values.get("step", job.step + 1), "before": before, "after": smaller}
    return Recovery(adjustments, f"{code}_retry", reason_values)


def _skip(job: Job, code: str, values: dict[str, Any]) -> Recovery | None:
    """Skip the step, unless too many steps right before it were skipped already."""
    step = int(values["step"])
    skipped = job.adjustments.skipped_steps
    if all(step - n in skipped for n in range(1, MAX_SKIPS_IN_A_ROW + 1)) or step in skipped:
        return None
    adjustments = job.adjustments.model_copy(update={"skipped_steps": sorted({*skipped, step})})
    return Recovery(adjustments, "step_skipped", {"step": step})


def jitter(job_id: str, fence: int) -> float:
    """A factor near 1 that belongs to an attempt."""
    return 1 + SPREAD * (zlib.crc32(f"{job_id} {fence}".encode()) % 2001 - 1000) / 1000
