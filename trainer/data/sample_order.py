"""The order of training samples: a keyed permutation, computed at any place without what came before. numpy only.

Position n of a run is in epoch n // size; each epoch is another permutation of all sequences. A permutation is a
four-round Feistel network on the smallest even number of bits that holds `size`; results outside are encrypted again
until they fall inside (cycle walking), at most four times on average.
"""

import numpy as np

ROUNDS = 4
Words = np.ndarray[tuple[int], np.dtype[np.uint64]]
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


def shuffled_index(positions: Ids, size: int, seed: int) -> Ids:
    """The sequence (0 to size - 1) at each position of a run."""
    epochs, places = np.divmod(positions.astype(np.uint64), np.uint64(size))
    keys = _mix(_mix(np.uint64(seed) + np.zeros_like(epochs)) ^ epochs)
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    found = _feistel(places, keys, half)
    while (outside := found >= size).any():
        found[outside] = _feistel(found[outside], keys[outside], half)
    return found.astype(np.int64)


def _feistel(words: Words, keys: Words, half: np.uint64) -> Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = words >> half, words & mask
    for number in range(ROUNDS):
        left, right = right, left ^ (_mix(keys + np.uint64(number) ^ right << np.uint64(8)) & mask)
    return (left << half) | right


def _mix(words: Words) -> Words:
    """The finalizer of splitmix64: every input bit changes every output bit."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
