"""The loss curve of a job as text."""

from collections.abc import Mapping
from typing import Any

import plotille

Curve = dict[int, float]  # the value at each step
COLORS = {"loss": "cyan", "eval_loss": "magenta"}
MARGIN = 14  # columns that the scale takes


def add_points(curves: dict[str, Curve], name: str, series: Mapping[str, Any]) -> None:
    """Take the data of an event `points` or `curve` into the curves; a curve replaces what there was.

    Points of steps that are trained again replace the former ones. Values that are not numbers are left out.
    """
    if name == "curve":
        curves.clear()
    for key, points in series.items():
        pairs = zip(points["steps"], points["values"], strict=True)
        curves.setdefault(key, {}).update({step: value for step, value in pairs if isinstance(value, int | float)})


def drawn(curves: Mapping[str, Curve], *, width: int, height: int, max_steps: int | None) -> str:
    """The curves of the loss as text of so many columns and lines; "" while there is no point."""
    shown_curves = {name: curves[name] for name in COLORS if curves.get(name)}
    if not shown_curves or height < 4 or width < MARGIN + 10:
        return ""
    figure = plotille.Figure()
    figure.width, figure.height = width - MARGIN, height - 3  # its axis takes three lines
    figure.color_mode = "names"
    figure.x_label, figure.y_label = "step", "loss"
    figure.register_label_formatter(float, lambda value, chars, delta, left=False: f"{value:>{chars}.4g}"[:chars])
    steps = [step for curve in shown_curves.values() for step in curve]
    values = [value for curve in shown_curves.values() for value in curve.values()]
    margin = (max(values) - min(values)) * 0.05 or 0.1
    figure.set_x_limits(min_=0, max_=max(*steps, max_steps or 0, 1))
    figure.set_y_limits(min_=min(values) - margin, max_=max(values) + margin)
    for name, curve in shown_curves.items():
        figure.plot(sorted(curve), [curve[step] for step in sorted(curve)], lc=COLORS[name])
    return str(figure.show(legend=False))
