"""Masking of BERT and span corruption of T5, as pure functions of seed and sample number. numpy only."""

import numpy as np

from trainer.data.batch import IGNORE_INDEX, Array
from trainer.data.tokenized_text import Ids

VALIDATION_STREAM = 1 << 63  # added to the numbers of validation samples, so that none coincides with a training sample


def sample_rng(seed: int, number: int) -> np.random.Generator:
    """The random generator of one sample."""
    return np.random.Generator(np.random.Philox(key=np.asarray([seed, number], dtype=np.uint64)))


def mask_tokens(ids: Ids, probability: float, mask: int, ordinary: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Mask tokens as BERT does. Returns inputs and labels, both of shape (tokens,).

    Selects a fraction `probability` of the ordinary tokens, at least one. Of the selected, 80 % become the mask token,
    10 % another ordinary token, 10 % stay. Labels are IGNORE_INDEX where nothing is selected. `ordinary` are the ids of
    tokens that are not special, sorted; special tokens are selected only in a text without ordinary ones.

    Source: Devlin et al. 2018, arXiv 1810.04805, appendix A.1.
    """
    candidates = np.flatnonzero(np.isin(ids, ordinary, kind="table"))
    if not len(candidates):
        candidates = np.arange(len(ids))
    selected = rng.permutation(candidates)[: max(1, round(len(candidates) * probability))]
    labels = np.full_like(ids, IGNORE_INDEX)
    labels[selected] = ids[selected]
    inputs, draws = ids.copy(), rng.random(len(selected))
    inputs[selected[draws < 0.8]] = mask
    replaced = selected[(draws >= 0.8) & (draws < 0.9)]
    inputs[replaced] = ordinary[rng.integers(0, len(ordinary), len(replaced))]
    return inputs, labels


def corrupt_spans(
    ids: Ids, density: float, mean_length: float, sentinels: Ids, end: int, rng: np.random.Generator
) -> tuple[Ids, Ids]:
    """Remove random spans as T5 does. Returns source and target, of shapes (source,) and (target,).

    The source is the text with a sentinel in place of each span, the target is the spans, each after its sentinel. Both
    end with the token `end`. `density` is the fraction of tokens to remove, `mean_length` the mean length of a span.

    Source: Raffel et al. 2019, arXiv 1910.10683, section 3.1.4, and random_spans_noise_mask of its code.
    """
    num_noise = min(max(round(len(ids) * density), 1), len(ids) - 1)
    num_spans = min(max(round(num_noise / mean_length), 1), num_noise, len(ids) - num_noise, len(sentinels))
    noise_lengths = _random_partition(num_noise, num_spans, rng)
    text_lengths = _random_partition(len(ids) - num_noise, num_spans, rng)
    source: list[Array] = []
    target: list[Array] = []
    start = 0
    for number in range(num_spans):
        noise_start = start + text_lengths[number]
        source += [ids[start:noise_start], sentinels[number : number + 1]]
        start = noise_start + noise_lengths[number]
        target += [sentinels[number : number + 1], ids[noise_start:start]]
    ending = np.asarray([end], dtype=ids.dtype)
    return np.concatenate([*source, ending]), np.concatenate([*target, ending])


def _random_partition(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """Split `total` into `count` positive parts, uniformly over all ways to do so."""
    cuts = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return [int(size) for size in np.diff(np.concatenate([[0], cuts, [total]]))]
