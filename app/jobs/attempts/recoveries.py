"""The recoveries of a job: how many, which steps were trained again, and whether they gave the same results."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.core.i18n import _, ngettext
from app.core.models import Attempt, Job, JobEvent
from app.jobs.attempts import replay

BAD_FIRST = ("different", "comparing", "equivalent", "exact")
NO_RECOVERY = ("wish_changed", "gpu_busy")  # an attempt was given up, but nothing was lost


@dataclass
class RecoverySummary:
    """What is known of a job's recoveries. `setback` is the last one; `repeated` counts steps by attempt."""

    count: int = 0
    setback: JobEvent | None = None
    repeated: Counter[int] = field(default_factory=Counter)
    replayed: Attempt | None = None  # the attempt with the worst verdict, of several the newest


def summarize(session: Session, jobs: Sequence[Job]) -> dict[str, RecoverySummary]:
    """The recoveries of each of these jobs, by its id."""
    summaries = {job.id: RecoverySummary() for job in jobs}
    fences = {job.id: job.fence for job in jobs if job.fence > 1 or job.state == "recovering"}
    if not fences:
        return summaries
    lost = (JobEvent.to_state == "recovering") & JobEvent.reason.not_in(NO_RECOVERY)
    events = select(JobEvent).where(JobEvent.job_id.in_(fences), or_(lost, JobEvent.reason == "resumed"))
    for event in session.scalars(events.order_by(JobEvent.job_id, JobEvent.seq)):
        summary = summaries[event.job_id]
        if event.reason == "resumed":
            repeated = event.data.get("repeated")
            summary.repeated[event.fence] += repeated if isinstance(repeated, int) else 0
        else:
            summary.setback = event
            summary.count += event.fence < fences[event.job_id]  # the last one is no recovery yet
    again = select(Attempt).where(Attempt.job_id.in_(fences), func.jsonb_exists(Attempt.replay, "until"))
    for attempt in session.scalars(again.order_by(Attempt.job_id, Attempt.fence)):
        summaries[attempt.job_id].replayed = _worse(attempt, summaries[attempt.job_id].replayed)
    return summaries


def _worse(attempt: Attempt, before: Attempt | None) -> Attempt | None:
    """The one that proves less. A later attempt may repeat the wrong steps of an earlier one exactly."""
    verdict = replay.determinism_verdict(attempt)
    if verdict is None:
        return before
    verdict_before = replay.determinism_verdict(before) if before is not None else None
    return attempt if verdict_before is None or BAD_FIRST.index(verdict) <= BAD_FIRST.index(verdict_before) else before


def sentence(attempt: Attempt) -> str | None:
    """What the steps trained twice prove, in the reader's language."""
    verdict = replay.determinism_verdict(attempt)
    comparison = attempt.replay
    if comparison is None:
        return None
    if verdict == "exact":
        return ngettext("Exact resume proven on {n} step.", "Exact resume proven on {n} steps.", comparison.steps)
    if verdict == "equivalent":
        changes = ", ".join(_machine_words(comparison.differs))
        return ngettext(
            "Equivalent: {n} step agrees within 1e-4 (changed since: {what}).",
            "Equivalent: {n} steps agree within 1e-4 (changed since: {what}).",
            comparison.steps,
            what=changes,
        )
    if verdict == "different" and comparison.first is not None:
        step, series, before, now = comparison.first
        values: dict[str, Any] = {"step": step, "series": series, "before": _formatted(before), "now": _formatted(now)}
        return _("Step {step} differs: {series} was {before}, now {now}.", **values)
    if verdict == "comparing":
        return _("Comparing the steps that are trained again: {steps} so far.", steps=comparison.steps)
    return None


def _machine_words(names: Sequence[str]) -> list[str]:
    words = {
        "world_size": _("number of processes"),
        "zero_stage": _("ZeRO stage"),
        "per_device_batch_size": _("micro-batch"),
        "num_threads": _("number of threads"),
        "precision": _("precision"),
        "device": _("device"),
        "versions": _("versions of libraries"),
    }
    return [words.get(name, name) for name in names]


def _formatted(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
