"""How far a job is and how long it will take: folds the events of a journal into `Job.progress`. Pure."""

from itertools import pairwise
from statistics import median

from app.core.json_shapes import JobProgress, PhaseTotals
from trainer.events import PhaseEvent, PointsEvent
from trainer.spec import TrainSpec

RECENT_STEPS = 40  # step times that the estimate looks at


def with_phase(progress: JobProgress, event: PhaseEvent) -> JobProgress:
    """Progress after a phase has moved. `seconds` add up over repeats of a phase, `count` counts its ends."""
    phases = {event.phase: PhaseTotals(), **progress.phases}
    if progress.phase is not None:
        # The time since the last event belongs to the phase that event was about, unless that phase had ended.
        last = phases[progress.phase]
        owner = event.phase if last.done >= last.total else progress.phase
        seconds = round(phases[owner].seconds + max(0.0, event.at - progress.at), 3)
        phases[owner] = phases[owner].model_copy(update={"seconds": seconds})
    totals = phases[event.phase]
    has_ended = event.done >= event.total and (totals.done < totals.total or totals.count == 0)
    moved = {"done": event.done, "total": event.total}
    phases[event.phase] = totals.model_copy(update={**moved, "count": totals.count + has_ended})
    return progress.model_copy(update={**moved, "phase": event.phase, "at": event.at, "phases": phases})


def with_points(progress: JobProgress, event: PointsEvent) -> JobProgress:
    """Progress after a step: the latest value of each series, and when the last few steps were done."""
    recent = progress.recent
    if "loss" in event.values:
        recent = [*recent, (event.step, event.at)][-RECENT_STEPS:]
    return progress.model_copy(update={"latest": {**progress.latest, **event.values}, "recent": recent})


def eta_seconds(progress: JobProgress, spec: TrainSpec, step: int) -> float | None:
    """Seconds until the job ends, with the evaluations and saves that are left; None where nothing is measured yet.

    A step takes the median of the recent ones, at first what the probe measured. Before training these are the
    seconds until the present phase ends.
    """
    if progress.phase in ("train", "evaluate", "save"):
        step_seconds = _step_seconds(progress.recent) or progress.step_seconds
        max_steps = spec.max_steps
        if step_seconds is None or max_steps is None:
            return None
        seconds = (max_steps - step) * step_seconds
        seconds += _times_left(step, spec.eval_steps, max_steps) * _seconds_each(progress, "evaluate")
        seconds += _times_left(step, spec.save_steps, max_steps) * _seconds_each(progress, "save")
        return round(seconds, 1)
    if progress.phase in ("prepare", "tokenise"):
        totals = progress.phases[progress.phase]
        if totals.total > 1 and totals.done > 0 and totals.seconds > 0:
            return round(totals.seconds / totals.done * (totals.total - totals.done), 1)
    return None


def _step_seconds(recent: list[tuple[int, float]]) -> float | None:
    seconds = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(recent) if b[0] > a[0]]
    return median(seconds) if seconds else None


def _times_left(step: int, every: int, last: int) -> int:
    """Multiples of `every` after a step up to the last one, which always counts."""
    regular = last // every - step // every
    return regular + (1 if last % every and step < last else 0)


def _seconds_each(progress: JobProgress, phase: str) -> float:
    totals = progress.phases.get(phase, PhaseTotals())
    return totals.seconds / totals.count if totals.count else 0.0
