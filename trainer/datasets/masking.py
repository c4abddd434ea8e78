"""What is hidden from a model that learns to fill gaps: a pure function of seed and sample. numpy only."""

import numpy as np

from trainer.data.batch import IGNORE_INDEX, Array
from trainer.data.tokenized_text import Ids

VALIDATION_STREAM = 1 << 63  # validation samples are hidden by numbers that no training sample reaches


def sample_rng(seed: int, number: int) -> np.random.Generator:
    """The randomness of one sample."""
    return np.random.Generator(np.random.Philox(key=np.asarray([seed, number], dtype=np.uint64)))


def mask_tokens(ids: Ids, share: float, mask: int, words: Ids, chance: np.random.Generator) -> tuple[Ids, Ids]:
    """Hide a share of the words (at least one) as BERT does: of ten, eight become the mask, one another word, one
    stays. Returns inputs and labels, IGNORED where nothing is hidden. Source: arXiv 1810.04805, appendix A.1.

    `words` are the tokens that are not special, sorted. Special ones are not hidden, where there is anything else.
    """
    candidates = np.flatnonzero(np.isin(ids, words, kind="table"))
    if not len(candidates):
        candidates = np.arange(len(ids))
    places = chance.permutation(candidates)[: max(1, round(len(candidates) * share))]
    count = len(places)
    labels = np.full_like(ids, IGNORE_INDEX)
    labels[places] = ids[places]
    inputs, drawn = ids.copy(), chance.random(count)
    inputs[places[drawn < 0.8]] = mask
    others = places[(drawn >= 0.8) & (drawn < 0.9)]
    inputs[others] = words[chance.integers(0, len(words), len(others))]
    return inputs, labels


def corrupt_spans(
    ids: Ids, density: float, mean_length: float, sentinels: Ids, end: int, chance: np.random.Generator
) -> tuple[Ids, Ids]:
    """Cut out random spans as T5 does. Returns the text with a sentinel for each span, and the spans, each behind its
    sentinel; both close with the end of text. Source: arXiv 1910.10683, section 3.1.4, and its code's random_spans.
    """
    num_hidden = min(max(round(len(ids) * density), 1), len(ids) - 1)
    num_spans = min(max(round(num_hidden / mean_length), 1), num_hidden, len(ids) - num_hidden, len(sentinels))
    hidden = _parts(num_hidden, num_spans, chance)
    shown = _parts(len(ids) - num_hidden, num_spans, chance)
    source: list[Array] = []
    target: list[Array] = []
    at = 0
    for number in range(num_spans):
        between = at + shown[number]
        source += [ids[at:between], sentinels[number : number + 1]]
        at = between + hidden[number]
        target += [sentinels[number : number + 1], ids[between:at]]
    closing = np.asarray([end], dtype=ids.dtype)
    return np.concatenate([*source, closing]), np.concatenate([*target, closing])


def _parts(total: int, count: int, chance: np.random.Generator) -> list[int]:
    """Cut a length into so many parts of at least one, every way as likely."""
    cuts = np.sort(chance.permutation(total - 1)[: count - 1]) + 1
    return [int(size) for size in np.diff(np.concatenate([[0], cuts, [total]]))]
