"""How far a job is and how long it will take: folds the events of a journal into `Job.progress`. Pure."""

from itertools import pairwise
from statistics import median
from typing import Any

from trainer.events import PhaseEvent, PointsEvent
from trainer.spec import TrainSpec

RECENT_STEPS = 40  # step times that the estimate looks at

# {"phase", "done", "total", "at", "phases": {phase: {"done", "total", "seconds", "count"}}, "recent": [[step, at]],
#  "latest": {series: value}, "step_seconds": of the probe}
Progress = dict[str, Any]


def with_phase(progress: Progress, event: PhaseEvent) -> Progress:
    """Progress after a phase has moved. `seconds` add up over repeats of a phase, `count` counts its ends."""
    phases = {name: dict(entry) for name, entry in progress.get("phases", {}).items()}
    entry = phases.setdefault(event.phase, {"done": 0, "total": 0, "seconds": 0.0, "count": 0})
    before = progress.get("phase")
    if before is not None:
        # The time since the last event belongs to the phase it spoke of, unless that had ended.
        past = phases[before]
        owner = entry if past["done"] >= past["total"] else past
        owner["seconds"] = round(owner["seconds"] + max(0.0, event.at - progress["at"]), 3)
    if event.done >= event.total and (entry["done"] < entry["total"] or entry["count"] == 0):
        entry["count"] += 1
    entry["done"], entry["total"] = event.done, event.total
    return {
        **progress,
        "phase": event.phase,
        "done": event.done,
        "total": event.total,
        "at": event.at,
        "phases": phases,
    }


def with_points(progress: Progress, event: PointsEvent) -> Progress:
    """Progress after a step: the latest value of each series, and when the last few steps were done."""
    latest = {**progress.get("latest", {}), **event.values}
    recent = progress.get("recent", [])
    if "loss" in event.values:
        recent = [*recent, [event.step, event.at]][-RECENT_STEPS:]
    return {**progress, "latest": latest, "recent": recent}


def eta_seconds(progress: Progress, spec: TrainSpec, step: int) -> float | None:
    """How long the job still takes: the steps left at the pace of the recent ones, at first of the probe, evaluations
    and saves left.

    Before training, how long the present phase still takes; None where nothing is known yet.
    """
    phase = progress.get("phase")
    if phase in ("train", "evaluate", "save"):
        pace = _step_seconds(progress.get("recent", [])) or progress.get("step_seconds")
        if pace is None:
            return None
        left = (spec.max_steps - step) * pace
        left += _times_left(step, spec.eval_steps, spec.max_steps) * _seconds_each(progress, "evaluate")
        left += _times_left(step, spec.save_steps, spec.max_steps) * _seconds_each(progress, "save")
        return round(left, 1)
    if phase in ("prepare", "tokenise"):
        entry = progress["phases"][phase]
        if entry["total"] > 1 and entry["done"] > 0 and entry["seconds"] > 0:
            return float(round(entry["seconds"] / entry["done"] * (entry["total"] - entry["done"]), 1))
    return None


def _step_seconds(recent: list[list[float]]) -> float | None:
    paces = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(recent) if b[0] > a[0]]
    return median(paces) if paces else None


def _times_left(step: int, every: int, last: int) -> int:
    """Multiples of `every` behind a step up to the last one, which always counts."""
    regular = last // every - step // every
    return regular + (1 if last % every and step < last else 0)


def _seconds_each(progress: Progress, phase: str) -> float:
    entry = progress.get("phases", {}).get(phase)
    return float(entry["seconds"] / entry["count"]) if entry and entry["count"] else 0.0
