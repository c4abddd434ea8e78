"""Estimated numbers with an interval and a reason. Pydantic only."""

from pydantic import BaseModel

from trainer.formats.messages import Message


class Estimate(BaseModel):
    """A number, the interval in which the true one is expected, its unit, and where it comes from."""

    low: float
    value: float
    high: float
    unit: str
    reason: Message


def estimate(value: float, spread: tuple[float, float], unit: str, reason: Message) -> Estimate:
    """An estimate whose interval is `value` times the two factors of `spread`."""
    return Estimate(low=value * spread[0], value=value, high=value * spread[1], unit=unit, reason=reason)
