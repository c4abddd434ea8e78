"""What the lines of an attempt's journal change in the database: progress, facts, points and samples of the job."""

from collections.abc import Sequence

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.models import Job, Sample
from app.jobs.attempts import metrics, progress
from trainer import events
from trainer.planning.counts import num_parameters
from trainer.spec import TrainSpec


def fold(session: Session, job: Job, new: Sequence[events.Event]) -> None:
    """Write what new lines say. The caller holds the job and sees to it that each line comes once."""
    points = [event for event in new if isinstance(event, events.PointsEvent)]
    for event in new:
        match event:
            case events.PhaseEvent():
                job.progress = progress.with_phase(job.progress, event)
            case events.PointsEvent():
                job.progress = progress.with_points(job.progress, event)
                job.step = max(job.step, event.step)
            case events.SampleEvent():
                _keep_sample(session, job, event)
            case events.TokenizerEvent():
                spec = TrainSpec.model_validate(job.spec)
                found = {"num_parameters": num_parameters(spec, event.vocab_size)}
                job.facts = {**job.facts, **found, "vocab_size": event.vocab_size, "tokenizer_sha256": event.sha256}
            case events.ProbeEvent():
                found = event.model_dump(exclude={"seq", "at", "kind"})
                job.facts = {**job.facts, "probe": found}
                job.progress = {**job.progress, "step_seconds": event.step_seconds}
                _close_precision(job, event.precision)
            case events.UsageEvent():
                job.facts = {**job.facts, "usage": event.model_dump(exclude={"seq", "at", "kind"})}
            case events.DataEvent():
                job.facts = {**job.facts, **event.model_dump(exclude={"seq", "at", "kind"})}
    lines = [metrics.Point(event.seq, event.step, dict(event.values)) for event in points]
    metrics.append(session, job_id=job.id, fence=job.fence, points=lines)


def _close_precision(job: Job, precision: str) -> None:
    """Where a spec leaves the precision to the machine, its first attempt decides, and all compute the same."""
    spec = TrainSpec.model_validate(job.spec)
    if spec.precision == "auto":
        closed = TrainSpec.model_validate({**job.spec, "precision": precision})
        job.spec, job.spec_sha256 = closed.model_dump(), closed.sha256()


def _keep_sample(session: Session, job: Job, event: events.SampleEvent) -> None:
    values = event.model_dump(include={"step", "seq", "prompt", "text"})
    values = {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in values.items()}
    session.execute(insert(Sample).values(job_id=job.id, fence=job.fence, **values).on_conflict_do_nothing())
