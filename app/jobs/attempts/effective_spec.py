"""The spec of a job's next attempt: the submitted one with what earlier attempts found out."""

from app.core.models import Job
from trainer.spec import TrainSpec


def effective_spec(job: Job) -> TrainSpec:
    """The job's spec with the micro-batch that recovery chose, and what the first attempt decided: precision, steps.

    `Job.spec` itself stays as it was submitted. The changes leave the result of a step as it is.
    """
    changes: dict[str, object] = {}
    if job.adjustments.per_device_batch_size is not None:
        changes["per_device_batch_size"] = job.adjustments.per_device_batch_size
    if job.spec.precision == "auto" and job.facts.probe is not None:
        changes["precision"] = job.facts.probe.precision
    if job.spec.max_steps is None and job.max_steps is not None:
        changes |= {"max_steps": job.max_steps, "num_train_epochs": None}
    return job.spec.model_copy(update=changes)
