"""Plans compared with measurements, and the corrections that later plans on the same machine take from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.i18n import gettext_noop, translate
from app.core.json_shapes import Adjustments, JobFacts, PlannedCost, PlannedEstimate
from app.core.models import Attempt, Job, JobEvent
from app.jobs.planning.answers import format_estimate
from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import Plan

MAX_JOBS = 20  # of the last ones of a machine, that corrections are taken from
MIN_JOBS = 3
MEMORY_TITLE = gettext_noop("Memory of a process")
TIME_TITLE = gettext_noop("Time of a step")
STARTUP_TITLE = gettext_noop("Time before the first step")


def planned(plan: Plan, node: NodeHardware | None) -> JobFacts:
    """The facts of a new job: what was planned; empty if no machine was known."""
    if node is None:
        return JobFacts()
    memory, step, startup = (
        PlannedEstimate(**plan.figures[name].model_dump(include={"low", "value", "high", "unit"}))
        for name in ("memory_bytes", "step_seconds", "startup_seconds")
    )
    return JobFacts(
        planned=PlannedCost(
            memory_bytes=memory,
            host_bytes=plan.host_bytes,
            step_seconds=step,
            startup_seconds=startup,
            memory_correction=node.memory_correction,
            time_correction=node.time_correction,
        )
    )


def corrections(session: Session, node: str) -> dict[str, Any]:
    """Fields of a `hardware.NodeHardware`: medians over its last jobs, as factors of the uncorrected estimates."""
    on_it = select(Attempt.job_id).where(Attempt.node == node)
    both = (func.jsonb_exists(Job.facts, "planned"), func.jsonb_exists(Job.facts, "usage"))
    as_planned = Job.adjustments == Adjustments()  # no smaller micro-batch, no skipped step
    rows = select(Job.facts).where(*both, as_planned, Job.id.in_(on_it)).order_by(Job.id.desc()).limit(MAX_JOBS)
    pairs = [(facts.planned, facts.usage) for facts in session.scalars(rows) if facts.planned and facts.usage]
    if len(pairs) < MIN_JOBS:
        return {}
    return {
        "num_earlier_jobs": len(pairs),
        "memory_correction": median(
            usage.peak_bytes / planned.memory_bytes.value * planned.memory_correction for planned, usage in pairs
        ),
        "time_correction": median(
            usage.step_seconds / planned.step_seconds.value * planned.time_correction for planned, usage in pairs
        ),
    }


def planned_memory(facts: JobFacts) -> dict[str, float]:
    """What the plan expected of the memory curve that it is about, in bytes by the name of the series."""
    if facts.planned is None:
        return {}
    series = "memory_bytes" if facts.planned.host_bytes is None else "gpu_memory_bytes"
    return {series: facts.planned.memory_bytes.value}


@dataclass(frozen=True)
class Comparison:
    """A planned figure and its measured value, as text for the page."""

    title: str
    predicted: str
    interval: str
    actual: str
    error: str
    is_inside: bool


def compared(facts: JobFacts, history: Sequence[JobEvent]) -> list[Comparison]:
    """The planned and measured figures of a job; empty until they are measured."""
    if facts.planned is None or facts.usage is None:
        return []
    figures = [
        _comparison(MEMORY_TITLE, facts.planned.memory_bytes, facts.usage.peak_bytes),
        _comparison(TIME_TITLE, facts.planned.step_seconds, facts.usage.step_seconds),
    ]
    startup = _startup_seconds(history)
    if facts.planned.startup_seconds is not None and startup is not None:
        figures.append(_comparison(STARTUP_TITLE, facts.planned.startup_seconds, startup))
    return figures


def _startup_seconds(history: Sequence[JobEvent]) -> float | None:
    """What passed from the start of the first attempt to its first step; None if it did not get there."""
    events = [event for event in history if event.reason in ("claimed", "first_step")][:2]
    if [event.reason for event in events] != ["claimed", "first_step"]:
        return None
    return (events[1].at - events[0].at).total_seconds()


def _comparison(title: str, estimate: PlannedEstimate, actual: float) -> Comparison:
    predicted, low, high, measured = (
        format_estimate(value, estimate.unit) for value in (estimate.value, estimate.low, estimate.high, actual)
    )
    return Comparison(
        title=translate(title),
        predicted=predicted,
        interval=f"{low} – {high}",
        actual=measured,
        error=f"{estimate.value / actual - 1:+z.0%}",
        is_inside=estimate.low <= actual <= estimate.high,
    )
