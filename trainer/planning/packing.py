"""Packs items into few bins, as several records into one sequence. Standard library only."""

from collections.abc import Sequence


def pack_best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items of these lengths, each at most `capacity`, into few bins. Returns the item indices of each bin.

    Best-fit decreasing: each item, longest first, goes into the fullest bin that takes it. Source: Ding et al. 2024,
    "Fewer Truncations Improve Language Modeling", arXiv 2404.10830.
    """
    bins: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # bins by remaining capacity
    spaces = 0  # bit n is set if a bin with remaining capacity n exists
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[number]
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            target = by_space[space].pop()
            if not by_space[space]:
                spaces &= ~(1 << space)
        else:
            space, target = capacity, len(bins)
            bins.append([])
        bins[target].append(number)
        remaining = space - length
        if remaining:
            by_space.setdefault(remaining, []).append(target)
            spaces |= 1 << remaining
    return bins
