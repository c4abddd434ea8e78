"""How much of each corpus a job sees: fixed weights, or a temperature. Arithmetic only."""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

from pydantic import BaseModel

from trainer.spec import TrainSpec

MAX_CYCLE = 10_000  # samples after which the order of the corpora repeats, about


class CorpusShare(BaseModel):
    """What a job sees of one corpus: its share of all tokens, and how often it goes over the corpus."""

    share: float
    num_epochs: float


def draws_per_cycle(spec: TrainSpec, sizes: Sequence[int]) -> list[int] | None:
    """How many samples of each corpus one cycle of the order has; None if the spec has no shares.

    `sizes` are the training samples of each corpus. Weights keep their exact ratio if a cycle of MAX_CYCLE samples can
    have it; others are rounded to that many samples, and to at least one. With the temperature T, a corpus of n samples
    has the weight n ** (1 / T): temperature-scaled mixing, Raffel et al. 2020, arXiv 1910.10683, section 3.5.2.
    """
    if spec.corpus_temperature is not None:
        largest = max(sizes)
        weights = [Fraction((size / largest) ** (1 / spec.corpus_temperature)) for size in sizes]
    elif spec.corpus_weights:
        weights = [Fraction(str(weight)) for weight in spec.corpus_weights]
    else:
        return None
    scale = lcm(*(weight.denominator for weight in weights))
    counts = [int(weight * scale) for weight in weights]
    divisor = gcd(*counts)
    if sum(counts) <= MAX_CYCLE * divisor:
        return [number // divisor for number in counts]
    total = sum(counts)
    return [max(1, round(Fraction(number * MAX_CYCLE, total))) for number in counts]


def corpus_shares(num_tokens: Sequence[float], num_epochs: Sequence[float]) -> list[CorpusShare]:
    """The shares of corpora with so many training tokens, which a job goes over so often."""
    totals = [tokens * epochs for tokens, epochs in zip(num_tokens, num_epochs, strict=True)]
    total = sum(totals) or 1.0
    return [CorpusShare(share=n / total, num_epochs=epochs) for n, epochs in zip(totals, num_epochs, strict=True)]
