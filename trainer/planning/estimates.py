"""How a plan says what it found: numbers with an interval, English sentences with values apart for translation."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


class Message(BaseModel):
    """An English sentence; the ends of its values' names say how to write them: _bytes, _seconds, _flops."""

    text: str
    values: dict[str, Any] = {}


def message(sentences: Mapping[str, str], code: str, **values: Any) -> Message:
    """A sentence of a table with those of the values that it names."""
    text = sentences[code]
    return Message(text=text, values={name: value for name, value in values.items() if "{" + name + "}" in text})


class Estimate(BaseModel):
    """A number with the interval that it is expected in, and why it is what it is."""

    low: float
    value: float
    high: float
    unit: str
    reason: Message


def estimate(value: float, spread: tuple[float, float], unit: str, reason: Message) -> Estimate:
    """A figure whose interval is given in shares of it."""
    return Estimate(low=value * spread[0], value=value, high=value * spread[1], unit=unit, reason=reason)
