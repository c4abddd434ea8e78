"""What was planned of jobs beside what they took, and what later plans on the same machine learn from that."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.i18n import gettext_noop, translate
from app.core.models import Attempt, Job
from app.jobs.planning.answers import format_estimate
from trainer.planning.hardware import Node
from trainer.planning.plan import Plan

LEARNT_FROM = 20  # the last jobs of a machine
FEWEST = 3
FIGURES = {"memory_bytes": ("peak_bytes", "memory_correction"), "step_seconds": ("step_seconds", "time_correction")}
TITLES = {"memory_bytes": gettext_noop("Memory of a process"), "step_seconds": gettext_noop("Time of a step")}


def planned(plan: Plan, node: Node | None) -> dict[str, Any]:
    """What a job's facts keep of its plan; nothing where no machine was known."""
    if node is None:
        return {}
    kept: dict[str, Any] = {
        name: plan.figures[name].model_dump(include={"low", "value", "high", "unit"}) for name in FIGURES
    }
    applied = {"memory_correction": node.memory_correction, "time_correction": node.time_correction}
    return {"planned": {**kept, **applied}}


def corrections(session: Session, node: str) -> dict[str, Any]:
    """The median of what this machine's last jobs took, in shares of what the arithmetic said."""
    on_it = select(Attempt.job_id).where(Attempt.node == node)
    both = (func.jsonb_exists(Job.facts, "planned"), func.jsonb_exists(Job.facts, "usage"))
    as_planned = Job.adjustments == {}  # no smaller micro-batch, no step passed over
    rows = select(Job.facts).where(*both, as_planned, Job.id.in_(on_it)).order_by(Job.id.desc()).limit(LEARNT_FROM)
    found = session.scalars(rows).all()
    if len(found) < FEWEST:
        return {}
    return {"num_earlier_jobs": len(found)} | {
        correction: median(
            facts["usage"][measured] / facts["planned"][name]["value"] * facts["planned"][correction] for facts in found
        )
        for name, (measured, correction) in FIGURES.items()
    }


@dataclass(frozen=True)
class Comparison:
    """A figure of a plan beside what came of it, as the page writes it."""

    title: str
    predicted: str
    interval: str
    actual: str
    error: str
    is_inside: bool


def compared(facts: dict[str, Any]) -> list[Comparison]:
    """The figures of a job that were both planned and measured."""
    plan, usage = facts.get("planned"), facts.get("usage")
    if not plan or not usage:
        return []
    found = []
    for name, (measured, _correction) in FIGURES.items():
        low, value, high, unit = (plan[name][key] for key in ("low", "value", "high", "unit"))
        actual = usage[measured]
        found.append(
            Comparison(
                title=translate(TITLES[name]),
                predicted=format_estimate(value, unit),
                interval=f"{format_estimate(low, unit)} – {format_estimate(high, unit)}",
                actual=format_estimate(actual, unit),
                error=f"{value / actual - 1:+.0%}",
                is_inside=low <= actual <= high,
            )
        )
    return found
