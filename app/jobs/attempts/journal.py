"""What the lines of an attempt's journal change in the database: progress, facts, points and samples of the job."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.json_shapes import JobFacts, JobProgress, Probe, Usage
from app.core.models import Job, Sample
from app.jobs.attempts import metrics, progress
from app.jobs.attempts.effective_spec import effective_spec
from trainer import events
from trainer.planning.counts import flops, num_parameters
from trainer.spec import TrainSpec

_ENVELOPE = {"seq", "at", "kind"}  # the fields of every event


def fold(session: Session, job: Job, new: Sequence[events.Event]) -> None:
    """Apply new lines to a locked job. The caller passes each line once."""
    job_progress = job.progress
    facts = job.facts
    for event in new:
        job_progress = _progress_after(job_progress, event)
        facts = _facts_after(facts, job.spec, event)
        if isinstance(event, events.DataEvent):
            job.max_steps = job.max_steps or event.max_steps
        if isinstance(event, events.SampleEvent):
            _add_sample(session, job, event)
    points = [event for event in new if isinstance(event, events.PointsEvent)]
    job.progress = job_progress
    job.facts = facts
    job.step = max([job.step, *(event.step for event in points)])
    lines = [
        metrics.Point(event.seq, event.step, {**event.values, **_mfu(job, event)}, _instant(event.at))
        for event in points
    ]
    metrics.append(session, job_id=job.id, fence=job.fence, points=lines)


def _mfu(job: Job, event: events.PointsEvent) -> dict[str, float]:
    """The model FLOPs utilization at a step at which the use of the machine was measured; empty at others.

    It is the share of the rate of matrix products that the devices reached before the first step, in percent
    (Chowdhery et al. 2022, arXiv 2204.02311, which divides by the peak in their data sheet).
    """
    speed, probe, vocab_size = event.values.get("tokens_per_second"), job.facts.probe, job.facts.vocab_size
    if "disk_free_bytes" not in event.values or not isinstance(speed, float) or probe is None or vocab_size is None:
        return {}
    spec = effective_spec(job)
    return {"mfu_percent": 100 * speed * flops(spec, vocab_size).model_flops / (probe.gemm_flops * spec.num_processes)}


def _instant(seconds: float) -> datetime | None:
    """Unix seconds as an instant; None for what no clock says."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _progress_after(before: JobProgress, event: events.Event) -> JobProgress:
    match event:
        case events.PhaseEvent():
            return progress.with_phase(before, event)
        case events.PointsEvent():
            return progress.with_points(before, event)
        case events.ProbeEvent():
            return before.model_copy(update={"step_seconds": event.step_seconds})
    return before


def _facts_after(before: JobFacts, spec: TrainSpec, event: events.Event) -> JobFacts:
    match event:
        case events.TokenizerEvent():
            vocabulary = {"vocab_size": event.vocab_size, "tokenizer_sha256": event.sha256}
            return before.model_copy(update={"num_parameters": num_parameters(spec, event.vocab_size), **vocabulary})
        case events.ProbeEvent():
            return before.model_copy(update={"probe": Probe(**event.model_dump(exclude=_ENVELOPE))})
        case events.UsageEvent():
            return before.model_copy(update={"usage": Usage(**event.model_dump(exclude=_ENVELOPE))})
        case events.DataEvent():
            counted = event.model_dump(exclude={*_ENVELOPE, "max_steps"})
            return JobFacts.model_validate({**before.model_dump(exclude_unset=True), **counted})
    return before


def _add_sample(session: Session, job: Job, event: events.SampleEvent) -> None:
    values = event.model_dump(include={"step", "seq", "split", "prompt", "text"})
    values = {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in values.items()}
    session.execute(insert(Sample).values(job_id=job.id, fence=job.fence, **values).on_conflict_do_nothing())
