"""Where a comparison's scores, intervals and baseline lie on their common axis, in percent of its width."""

from dataclasses import dataclass

from app.evaluations.service import CorpusComparison, Score

SHARES = ("acc", "exact_match", "right")  # metrics whose axis goes from 0 to 1
MARGIN = 0.06  # of the range of other metrics, on both sides


@dataclass(frozen=True)
class ScoreAxis:
    """A linear axis from `low` to `high`."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """The place of a value in percent of the width, within the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


def axis(comparison: CorpusComparison) -> ScoreAxis:
    """The axis on which all scores, their intervals and the baseline lie."""
    if comparison.metric in SHARES:
        return ScoreAxis(0.0, 1.0)
    values = [end for score in comparison.scores for end in ends(score)]
    if comparison.baseline is not None:
        values.append(comparison.baseline)
    low, high = min(values), max(values)
    margin = MARGIN * (high - low) or 1.0
    return ScoreAxis(low - margin, high + margin)


def ends(score: Score) -> tuple[float, float]:
    """The ends of a score's interval, or twice its value."""
    return score.interval or (score.value, score.value)
