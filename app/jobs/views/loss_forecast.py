"""Where the training loss of a job that has not ended will probably be at its end."""

from functools import lru_cache
from typing import Self

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.core.models import TERMINAL, Job
from app.jobs.attempts import metrics
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.planning import power_law

MAX_POINTS = 400  # of the curve that is fitted
NUM_PLACES = 60  # of the forecast


class LossForecast(BaseModel):
    """The expected training loss from a step to the end of a job; all lists are empty where it cannot be told.

    A power law is fitted to the loss since warm-up. The job is expected to end between the last `low` and `high`.
    """

    steps: list[int]
    values: list[float] = Field(description="The expected loss at each step.")
    low: list[float]
    high: list[float]

    @classmethod
    def none(cls) -> Self:
        """No forecast."""
        return cls(steps=[], values=[], low=[], high=[])


def forecast(session: Session, job: Job) -> LossForecast:
    """The forecast of a job from its points so far. It changes with the first two digits of the step, no more often."""
    spec = effective_spec(job)
    if job.state in TERMINAL or spec.max_steps is None:
        return LossForecast.none()
    until = _two_digits(metrics.last_step(session, job_id=job.id))
    start = spec.num_warmup_steps + 1
    if until <= start or until >= spec.max_steps:
        return LossForecast.none()
    window = metrics.Window(start, until + 1, MAX_POINTS)
    curve = metrics.curves(session, job_id=job.id, window=window, series=["loss"]).get("loss", metrics.Curve())
    middle = (curve.stride - 1) / 2  # a bucket has the last of its steps
    points = [
        (step - middle, value)
        for step, value in zip(curve.steps, curve.values, strict=True)
        if isinstance(value, float)
    ]
    return _drawn(tuple(points), until, spec.max_steps)


def _two_digits(step: int) -> int:
    """A step rounded down to its first two digits, such as 1234 to 1200: many viewers get the same forecast."""
    unit = int("1" + "0" * (len(str(max(step, 0))) - 2))
    return step // unit * unit


@lru_cache(maxsize=256)
def _drawn(points: tuple[tuple[float, float], ...], start: int, end: int) -> LossForecast:
    """The forecast in the places where it is drawn."""
    extrapolation = power_law.extrapolate(points, end)
    if extrapolation is None:
        return LossForecast.none()
    steps = _places(start, end)
    intervals = [extrapolation.interval(step) for step in steps]
    return LossForecast(
        steps=steps,
        values=[extrapolation.best.at(step) for step in steps],
        low=[low for low, _high in intervals],
        high=[high for _low, high in intervals],
    )


def _places(start: int, end: int) -> list[int]:
    """Steps at equal distances, the last one among them."""
    return sorted({start + (end - start) * n // NUM_PLACES for n in range(NUM_PLACES + 1)})
