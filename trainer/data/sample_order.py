"""The order of training samples: a keyed permutation that gives any position without computing the ones before.

Position n of a run belongs to epoch n // size; each epoch is another permutation of all samples. The permutation is a
four-round Feistel network on the smallest even number of bits that holds `size` (Luby and Rackoff 1988). Results
outside the range are permuted again until they fall inside (cycle walking: Black and Rogaway 2002, "Ciphers with
arbitrary finite domains"), at most four times on average. numpy only.
"""

import numpy as np

from trainer.rounding import ceil_div

ROUNDS = 4
Words = np.ndarray[tuple[int], np.dtype[np.uint64]]
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


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
