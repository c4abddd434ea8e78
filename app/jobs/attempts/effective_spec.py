"""The spec that the next attempt at a job computes: what was asked for, with what later turned out."""

from app.core.models import Job
from trainer.spec import TrainSpec


def effective_spec(job: Job) -> TrainSpec:
    """The job's spec with the micro-batch that recovery chose, and the precision that the first attempt decided.

    `Job.spec` itself stays what was asked for. Both changes leave the result of a step as it is.
    """
    changes: dict[str, object] = {}
    if job.adjustments.per_device_batch_size is not None:
        changes["per_device_batch_size"] = job.adjustments.per_device_batch_size
    if job.spec.precision == "auto" and job.facts.probe is not None:
        changes["precision"] = job.facts.probe.precision
    return job.spec.model_copy(update=changes)
