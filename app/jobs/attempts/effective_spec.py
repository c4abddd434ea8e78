"""The spec of a job's next attempt: the submitted one with what earlier attempts found out."""

from app.core.models import Job
from trainer.planning import counts
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


def step_cost(job: Job) -> dict[str, int]:
    """The tokens and FLOPs of a step; of a job that has not begun the text may decide the vocabulary."""
    spec = effective_spec(job)
    tokens = counts.tokens_per_step(spec)
    size = job.facts.vocab_size or spec.vocab_size or 1
    return {"tokens_per_step": tokens, "flops_per_step": tokens * counts.flops(spec, size).model_flops}
