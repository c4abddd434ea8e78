"""A plan's figures and sentences in the reader's language."""

from typing import Any

from app.i18n import _, translate
from app.web import compact, file_size, number, span
from trainer.plan import Figure, Sentence

PREFIXES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def said(sentence: Sentence) -> str:
    """A sentence with its values written as the ends of their names say."""
    return _(sentence.text, **{name: _shown(name, value) for name, value in sentence.values.items()})


def interval(figure: Figure) -> str:
    """A figure and the interval that it is expected in."""
    low, value, high = (_amount(amount, figure.unit) for amount in (figure.low, figure.value, figure.high))
    if low == high:
        return value
    return _("{value} ({low} to {high})", value=value, low=low, high=high)


def _shown(name: str, value: Any) -> Any:
    unit = name.rpartition("_")[2]
    if unit in ("bytes", "seconds", "flops") and isinstance(value, int | float):
        return _amount(value, unit)
    if isinstance(value, str) or value is None:
        return translate(value or "–")
    return number(value)


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return file_size(value)
    if unit == "seconds":
        return span(value) if value >= 10 else _("{n} s", n=f"{value:.2g}")
    if unit == "flops":
        size, prefix = next(((size, prefix) for size, prefix in PREFIXES if value >= size), (1.0, ""))
        return f"{value / size:.3g} {prefix}FLOP"
    if unit == "kWh":
        return f"{value:.3g} kWh"
    return compact(value)
