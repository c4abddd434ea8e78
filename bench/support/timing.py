"""How long calls take."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds(work: Callable[[], Any], times: int) -> list[float]:
    """The seconds of each of so many calls."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return taken


def p95(values: list[float]) -> float:
    """What 95 of 100 values keep to."""
    return statistics.quantiles(values, n=100, method="inclusive")[94]


def p99(values: list[float]) -> float:
    """What 99 of 100 values keep to."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def verdict(value: float, goal: float) -> str:
    """What a figure says about its goal, which it must not exceed."""
    return f"(goal: {goal:g})" + ("" if value <= goal else "  MISSED")
