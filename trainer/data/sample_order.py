"""The order of training samples: a keyed permutation that gives any position without computing the ones before.

Position n of a run belongs to epoch n // size; each epoch is another permutation of all samples. The permutation is a
four-round Feistel network on the smallest even number of bits that holds `size` (Luby and Rackoff 1988). Results
outside the range are permuted again until they fall inside (cycle walking: Black and Rogaway 2002, "Ciphers with
arbitrary finite domains"), at most four times on average. Corpora with weights take turns in a fixed cycle. numpy only.
"""

from collections.abc import Sequence

import numpy as np

from trainer.failure import Failure
from trainer.planning.mixture import draws_per_cycle
from trainer.rounding import ceil_div
from trainer.spec import TrainSpec

ROUNDS = 4
Words = np.ndarray[tuple[int], np.dtype[np.uint64]]
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


class SampleOrder:
    """The training sample at each position of a run, of several corpora whose samples are numbered one after another.

    `sizes` are the samples of each corpus. Without `draws`, all of them are permuted together, epoch after epoch. With
    `draws`, each cycle of sum(draws) positions has draws[c] samples of corpus c at even distances (stride scheduling:
    Waldspurger and Weihl 1995; the j-th of d stands at the fraction (j + 1/2) / d of the cycle), and each corpus has
    epochs and permutations of its own. All sizes must be above 0 then.
    """

    def __init__(self, sizes: Sequence[int], seed: int, draws: Sequence[int] | None = None) -> None:
        self._sizes, self._seed = [sum(sizes)] if draws is None else list(sizes), seed
        self._draws = np.asarray([1] if draws is None else draws, dtype=np.int64)
        corpora = np.repeat(np.arange(len(self._draws)), self._draws)
        numbers = np.concatenate([np.arange(count, dtype=np.int64) for count in self._draws])
        order = np.argsort((numbers + 0.5) / self._draws[corpora], kind="stable")
        self._corpora, self._numbers = corpora[order], numbers[order]  # shape (cycle,)
        self._firsts = np.cumsum([0, *self._sizes])

    def samples(self, positions: Ids) -> Ids:
        """The samples at these positions. Both arrays have shape (count,)."""
        cycles, slots = np.divmod(positions, len(self._corpora))
        corpora = self._corpora[slots]
        numbers = cycles * self._draws[corpora] + self._numbers[slots]
        samples = np.empty_like(positions)
        for corpus in np.unique(corpora).tolist():
            chosen = corpora == corpus
            index = shuffled_index(numbers[chosen], self._sizes[corpus], self._seed + (corpus << 32))
            samples[chosen] = self._firsts[corpus] + index
        return samples

    def num_epochs(self, count: int) -> list[float]:
        """How often the first `count` positions go over the samples of each corpus; of all together without draws."""
        cycles, rest = divmod(count, len(self._corpora))
        drawn = cycles * self._draws + np.bincount(self._corpora[:rest], minlength=len(self._draws))
        return [int(number) / size for number, size in zip(drawn, self._sizes, strict=True)]


def order_samples(spec: TrainSpec, sizes: Sequence[int]) -> SampleOrder:
    """The order of training samples, so many of each corpus.

    Raises Failure if a corpus that the spec gives a share has none.
    """
    draws = draws_per_cycle(spec, sizes) if sum(sizes) else None
    if draws is not None and 0 in sizes:
        raise Failure("corpus_short", corpus=spec.corpora[list(sizes).index(0)])
    return SampleOrder(sizes, spec.seed, draws)


def shuffled_index(positions: Ids, size: int, seed: int) -> Ids:
    """The sample (0 to size - 1) at each position of a run. Both arrays have shape (count,)."""
    epochs, offsets = np.divmod(positions.astype(np.uint64), np.uint64(size))
    keys = _mix(_mix(np.uint64(seed) + np.zeros_like(epochs)) ^ epochs)
    half = np.uint64(max(1, ceil_div((size - 1).bit_length(), 2)))
    samples = _feistel(offsets, keys, half)
    while (outside := samples >= size).any():
        samples[outside] = _feistel(samples[outside], keys[outside], half)
    return samples.astype(np.int64)


def _feistel(words: Words, keys: Words, half: np.uint64) -> Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = words >> half, words & mask
    for number in range(ROUNDS):
        left, right = right, left ^ (_mix(keys + np.uint64(number) ^ right << np.uint64(8)) & mask)
    return (left << half) | right


def _mix(words: Words) -> Words:
    """The finalizer of splitmix64 (Steele et al. 2014): every input bit affects every output bit."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
