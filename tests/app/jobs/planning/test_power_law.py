"""Extrapolation of loss curves: of known ones with noise, of real runs from their beginnings, and where it refuses."""

import json
import math
import random
from statistics import mean

import pytest

from app.core.settings import ROOT
from app.jobs.planning.power_law import Extrapolation, extrapolate

CURVES = ROOT / "tests" / "fixtures" / "loss_curves"
Points = list[tuple[float, float]]


def noisy_curve(a: float, b: float, c: float, noise: float, steps: range, seed: int) -> Points:
    generator = random.Random(seed)
    return [(float(t), a + b * math.pow(t, -c) + generator.gauss(0, noise)) for t in steps]


def contains(extrapolation: Extrapolation, t: float, loss: float) -> bool:
    low, high = extrapolation.interval(t)
    return low <= loss <= high


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
@pytest.mark.parametrize(("a", "b", "c"), [(1.7, 9, 0.35), (0.0, 8, 0.12), (2.5, 6, 0.8), (1, 5, 0.25)])
def test_the_end_of_a_power_law_lies_in_the_interval(a: float, b: float, c: float, noise: float, share: float) -> None:
    end = 2000
    expected = a + b * math.pow(end, -c)
    for seed in range(8):
        found = extrapolate(noisy_curve(a, b, c, noise, range(20, int(share * end)), seed), end)
        assert found is not None
        assert contains(found, end, expected), seed
        assert found.best.at(end) == pytest.approx(expected, rel=0.02 + noise / share / 6)


def test_without_noise_the_parameters_are_found() -> None:
    found = extrapolate(noisy_curve(1.7, 9, 0.35, 0.0, range(20, 900), 0), 2000)
    assert found is not None
    assert (found.best.a, found.best.c) == (pytest.approx(1.7, abs=0.2), pytest.approx(0.35, abs=0.05))


def test_the_interval_is_wider_the_further_ahead_and_the_noisier() -> None:
    def width(noise: float, t: int) -> float:
        found = extrapolate(noisy_curve(1.7, 9, 0.35, noise, range(20, 500), 3), 2000)
        assert found is not None
        low, high = found.interval(t)
        return high - low

    assert width(0.1, 600) < width(0.1, 1000) < width(0.1, 2000)
    assert width(0.02, 2000) < width(0.3, 2000)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", ["genesis_cosine", "lyrics_constant"])
def test_the_end_of_a_real_run_lies_in_the_interval_of_its_beginning(name: str, share: float) -> None:
    curve = json.loads((CURVES / f"{name}.json").read_text())
    losses, warmup = curve["losses"], curve["warmup_steps"]
    end = len(losses)
    points = [(float(t), loss) for t, loss in enumerate(losses, 1) if warmup < t <= share * end]
    found = extrapolate(points, end)
    assert found is not None
    at_end = mean(losses[-40:])
    assert contains(found, end, at_end)
    assert found.best.at(end) == pytest.approx(at_end, rel=0.04 if share >= 0.3 else 0.1)


FALLING = noisy_curve(1.7, 9, 0.35, 0.05, range(20, 500), 0)


@pytest.mark.parametrize(
    ("points", "end"),
    [
        ([], 100),
        (FALLING[:30], 100),  # too few
        (FALLING, 6000),  # too far ahead
        ([*FALLING, (500.0, math.nan)], 1000),
        ([(t, 3 - loss / 10) for t, loss in FALLING], 1000),  # rises
        (noisy_curve(3, 0, 1, 0.1, range(20, 500), 1), 1000),  # stays
        ([(t, loss + max(0, t - 250) / 200) for t, loss in FALLING], 1000),  # falls, then rises
    ],
)
def test_nothing_is_extrapolated_from_what_does_not_allow_it(points: Points, end: int) -> None:
    assert extrapolate(points, end) is None
