"""An n-gram model of words, to score how usual a text is: interpolated Kneser-Ney smoothing (Chen and Goodman 1999).

N-grams are kept as 64-bit hashes in sorted arrays, with about 30 bytes for each different one, and looked up for all
words of a text at once. numpy only.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MAX_WORDS = 5_000_000  # of the reference text, from its beginning
UNKNOWN, START = 0, 1  # in place of a word that the reference text lacks; before the first word of a document
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)

Keys = np.ndarray[tuple[int], np.dtype[np.uint64]]  # shape (n-grams,)
Counts = np.ndarray[tuple[int], np.dtype[np.float64]]  # shape (n-grams,)
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]  # shape (words,)


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length: their counts, and of their contexts the sum of these and the different next words."""

    keys: Keys
    counts: Counts
    contexts: Keys
    totals: Counts
    num_next: Counts
    discount: float


class NgramModel:
    """A model of `order` words, trained on documents, each a list of words."""

    def __init__(self, documents: Iterable[Sequence[str]], order: int) -> None:
        self._order = order
        self._words: dict[str, int] = {}
        ids = self._read(documents)
        self.num_words = int((ids != START).sum())
        hashes = [_hash_ngrams(ids, length) for length in range(1, order + 1)]
        predicted = np.flatnonzero(ids != START)
        self._orders: list[_Order] = []
        positions = predicted  # of each different n-gram one
        for length in range(order, 0, -1):
            keys, first, num = np.unique(hashes[length - 1][positions], return_index=True, return_counts=True)
            counts = num.astype(np.float64)  # of shorter n-grams than the longest: of the different words before them
            positions = positions[first]
            before = hashes[length - 2][positions - 1] if length > 1 else np.zeros(len(keys), dtype=np.uint64)
            self._orders.insert(0, _make_order(keys, counts, before))

    def _read(self, documents: Iterable[Sequence[str]]) -> Ids:
        """The numbers of all words, with START before each document as often as an n-gram reaches back."""
        ids = array("q", [START] * self._order)
        left = MAX_WORDS
        for words in documents:
            for word in words[:left]:
                ids.append(self._words.setdefault(word, len(self._words) + 2))
            left -= min(left, len(words))
            if not left:
                break
            ids.extend([START] * (self._order - 1))
        return np.frombuffer(ids, dtype=np.int64)

    def perplexity(self, words: Sequence[str]) -> float:
        """The inverse of the geometric mean of the probabilities of words, each after those before it; at least 1."""
        numbers = [START] * self._order + [self._words.get(word, UNKNOWN) for word in words]
        ids = np.asarray(numbers, dtype=np.int64)
        probabilities = np.full(len(words), 1 / (len(self._words) + 1))  # any word, known or not
        for length, counted in enumerate(self._orders, start=1):
            keys = _hash_ngrams(ids, length)[self._order :]
            contexts = _hash_ngrams(ids, length - 1)[self._order - 1 : -1]
            probabilities = _interpolated(counted, keys, contexts, probabilities)
        return float(np.exp(-np.log(probabilities).mean()))


def _hash_ngrams(ids: Ids, length: int) -> Keys:
    """The hash of the n-gram that ends at each word; 0 for n-grams of no word."""
    hashes = np.zeros(len(ids), dtype=np.uint64)
    numbers = ids.astype(np.uint64) + np.uint64(1)
    for _word in range(length):
        before = np.concatenate((hashes[:1], hashes[:-1]))
        hashes = (before + numbers) * _FACTOR
        hashes ^= hashes >> _SHIFT
    return hashes


def _make_order(keys: Keys, counts: Counts, before: Keys) -> _Order:
    contexts, context_of = np.unique(before, return_inverse=True)
    once, twice = float((counts == 1).sum()), float((counts == 2).sum())
    discount = once / (once + 2 * twice) if once and twice else 0.5
    return _Order(
        keys=keys,
        counts=counts,
        contexts=contexts,
        totals=np.bincount(context_of, weights=counts).astype(np.float64),
        num_next=np.bincount(context_of).astype(np.float64),
        discount=discount,
    )


def _interpolated(order: _Order, keys: Keys, contexts: Keys, shorter: Counts) -> Counts:
    """The probabilities of words by n-grams of one length, interpolated with those by shorter ones."""
    totals = _look_up(order.contexts, order.totals, contexts)
    is_known = totals > 0
    reserved = order.discount * _look_up(order.contexts, order.num_next, contexts)
    counts = np.maximum(_look_up(order.keys, order.counts, keys) - order.discount, 0)
    return np.where(is_known, (counts + reserved * shorter) / np.where(is_known, totals, 1), shorter)


def _look_up(sorted_keys: Keys, values: Counts, keys: Keys) -> Counts:
    """The value of each key, 0 for one that is not there."""
    if not len(sorted_keys):
        return np.zeros(len(keys))
    places = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == keys, values[places], 0.0)
