"""Extrapolates a loss curve by the power law a + b t^-c, fitted by least squares. Pure arithmetic.

For each exponent c of a grid, a and b have a closed form. Losses of language models fall like this over training
(Kaplan et al. 2020, arXiv 2001.08361; Hoffmann et al. 2022, arXiv 2203.15556).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

EXPONENTS = tuple(0.05 * 1.1**n for n in range(40))  # 0.05 to about 2
BINS_PER_E = 12  # bins of the points: so many while t grows by a factor of e
MIN_BINS = 12
MIN_POINTS = 40
FITTED_SHARE = 0.1  # of the time so far, before which the loss still falls in another way
MAX_EXTRAPOLATION = 10.0  # times the time so far
CHECKED_SHARE = 0.5  # a fit of the points up to here must predict the later ones
MIN_ERROR = 0.003  # of the loss: no run follows a power law more closely
MIN_MISS = 0.03  # of the loss: what runs deviate by that seemed to be predicted better
NORMAL_QUANTILE = 1.96  # of an interval that holds 95 % of normal errors


@dataclass(frozen=True)
class Bin:
    """The mean `loss` of `count` points around `t`, and the standard error of this mean."""

    t: float
    loss: float
    count: int
    error: float


@dataclass(frozen=True)
class PowerLaw:
    """The curve a + b t^-c, with the sum of squared errors of its fit."""

    a: float
    b: float
    c: float
    squares: float

    def at(self, t: float) -> float:
        """The loss at a time."""
        return self.a + self.b * math.pow(t, -self.c)


@dataclass(frozen=True)
class Extrapolation:
    """A fitted curve, and the others that fit the points almost as well."""

    best: PowerLaw
    others: Sequence[PowerLaw]
    end: float  # of the points
    miss: float  # by how much a fit of the first half misses the second

    def interval(self, t: float) -> tuple[float, float]:
        """The range in which the loss is expected at a time after the last point."""
        values = [law.at(t) for law in (self.best, *self.others)]
        doublings = math.log(max(t / self.end, 1.0)) / -math.log(CHECKED_SHARE)
        margin = max(self.miss, MIN_MISS * values[0]) * (0.5 + doublings)
        return max(0.0, min(values) - margin), max(values) + margin


def extrapolate(points: Sequence[tuple[float, float]], end: float) -> Extrapolation | None:
    """The course of a loss up to the time `end`, from its points (time, loss) in order of time.

    None where they do not allow it: too few, too early, not finite, or not falling along a power law.
    """
    if not points or not all(math.isfinite(loss) for _t, loss in points):
        return None
    now = points[-1][0]
    bins = _bins([(t, loss) for t, loss in points if t >= FITTED_SHARE * now])
    num_points = sum(one.count for one in bins)
    if len(bins) < MIN_BINS or num_points < MIN_POINTS or end > MAX_EXTRAPOLATION * now or not _is_falling(bins):
        return None
    laws = _laws(bins)
    earlier = _laws([one for one in bins if one.t <= CHECKED_SHARE * now])
    if not laws or not earlier:
        return None
    best = min(laws, key=lambda law: law.squares)
    first = min(earlier, key=lambda law: law.squares)
    later = [one for one in bins if one.t > CHECKED_SHARE * now]
    miss = sum(one.count * abs(one.loss - first.at(one.t)) for one in later) / sum(one.count for one in later)
    noise = best.squares / (len(bins) - 3)
    limit = best.squares + NORMAL_QUANTILE**2 * max(noise, 1.0)
    return Extrapolation(best, [law for law in laws if law.squares <= limit], now, miss)


def _bins(points: Sequence[tuple[float, float]]) -> list[Bin]:
    """Points by the logarithm of their time, so that early and late ones count alike."""
    spread = _spread([loss for _t, loss in points])
    bins = []
    for _place, group in groupby(points, key=lambda point: int(BINS_PER_E * math.log(point[0]))):
        members = list(group)
        times, losses = [t for t, _loss in members], [loss for _t, loss in members]
        count = len(members)
        loss = sum(losses) / count
        bins.append(Bin(sum(times) / count, loss, count, max(spread / math.sqrt(count), MIN_ERROR * loss)))
    return bins


def _spread(losses: Sequence[float]) -> float:
    """The standard deviation of a loss around its course, from the differences of neighbors."""
    squares = [(after - before) ** 2 for before, after in pairwise(losses)]
    return max(math.sqrt(sum(squares) / (2 * len(squares))) if squares else 0.0, 1e-6)


def _is_falling(bins: Sequence[Bin]) -> bool:
    """Whether the loss falls from each third of the bins to the next, by more than chance."""
    third = len(bins) // 3
    means = [_mean(part) for part in (bins[:third], bins[third:-third], bins[-third:])]
    return all(
        before - after > math.hypot(before_error, after_error)
        for (before, before_error), (after, after_error) in pairwise(means)
    )


def _mean(bins: Sequence[Bin]) -> tuple[float, float]:
    """The mean loss of bins, and its standard error."""
    mean = sum(one.loss for one in bins) / len(bins)
    return mean, math.sqrt(sum(one.error**2 for one in bins)) / len(bins)


def _laws(bins: Sequence[Bin]) -> list[PowerLaw]:
    """The best falling curve of each exponent."""
    laws = (_law(bins, c) for c in EXPONENTS)
    return [law for law in laws if law.b > 0]


def _law(bins: Sequence[Bin], c: float) -> PowerLaw:
    """The curve of an exponent: a weighted linear regression of the loss on t^-c, with a not below 0."""
    weights = [1 / one.error**2 for one in bins]
    powers = [one.t**-c for one in bins]
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, powers, strict=True)) / total
    mean_y = sum(w * one.loss for w, one in zip(weights, bins, strict=True)) / total
    xx = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, powers, strict=True))
    xy = sum(w * (x - mean_x) * (one.loss - mean_y) for w, x, one in zip(weights, powers, bins, strict=True))
    b = xy / xx if xx else 0.0
    a = mean_y - b * mean_x
    if a < 0:
        a = 0.0
        b = sum(w * x * one.loss for w, x, one in zip(weights, powers, bins, strict=True)) / sum(
            w * x * x for w, x in zip(weights, powers, strict=True)
        )
    squares = sum(w * (one.loss - a - b * x) ** 2 for w, x, one in zip(weights, powers, bins, strict=True))
    return PowerLaw(a, b, c, squares)
