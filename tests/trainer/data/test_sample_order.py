"""The permutation that orders training samples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import sample_order

sizes = st.integers(min_value=1, max_value=3_000)
seeds = st.integers(min_value=0, max_value=2**31 - 1)


def samples_at(first: int, count: int, size: int, seed: int) -> list[int]:
    numbers: list[int] = sample_order.shuffled_index(np.arange(first, first + count), size, seed).tolist()
    return numbers


@given(sizes, seeds, st.integers(min_value=0, max_value=5))
def test_each_epoch_has_every_sample_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(samples_at(epoch * size, size, size, seed)) == list(range(size))


@given(sizes, seeds, st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=300))
def test_a_sample_depends_on_its_position_alone(size: int, seed: int, first: int, count: int) -> None:
    together = samples_at(first, count, size, seed)

    assert together == [samples_at(first + place, 1, size, seed)[0] for place in range(count)]


def test_epochs_and_seeds_give_different_random_orders() -> None:
    first, second, other = samples_at(0, 1000, 1000, 1), samples_at(1000, 1000, 1000, 1), samples_at(0, 1000, 1000, 2)

    for one, two in ((first, second), (first, other), (first, list(range(1000)))):
        assert sum(a == b for a, b in zip(one, two, strict=True)) < 10
    distances = np.abs(np.diff(first))
    assert 300 < distances.mean() < 370  # a third of the size, as for independent draws


def test_each_sample_is_equally_likely_at_each_position() -> None:
    firsts = [samples_at(0, 1, 8, seed)[0] for seed in range(4000)]

    assert max(abs(firsts.count(number) - 500) for number in range(8)) < 100


def test_a_trillion_samples_take_no_longer_than_a_few() -> None:
    samples = samples_at(10**15, 4, 10**12, 3)

    assert len(set(samples)) == 4
    assert all(0 <= number < 10**12 for number in samples)


# ---- several corpora ------------------------------------------------------------------------------------------------

draws = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=6)


def order_of(sizes: list[int], draws: list[int] | None, seed: int = 3) -> sample_order.SampleOrder:
    return sample_order.SampleOrder(sizes, seed, draws)


def counts_of(samples: np.ndarray, sizes: list[int]) -> list[int]:
    corpora = np.searchsorted(np.cumsum(sizes), samples, side="right")
    return np.bincount(corpora, minlength=len(sizes)).tolist()


def test_without_draws_all_samples_are_permuted_together() -> None:
    positions = np.arange(500)
    together = sample_order.shuffled_index(positions, 300, 3)
    assert order_of([100, 200], None).samples(positions).tolist() == together.tolist()
    assert order_of([100, 200], None).num_epochs(450) == [1.5]


def test_corpora_take_turns_at_even_distances() -> None:
    samples = order_of([5, 100], [1, 3]).samples(np.arange(12))
    # the sample of the first stands at 1/2, those of the second at 1/6, 3/6 and 5/6 of a cycle
    assert [int(sample >= 5) for sample in samples] == [1, 0, 1, 1] * 3


def test_shares_of_ten_thousand_samples_are_exact() -> None:
    sizes = [50, 3_000, 700]
    samples = order_of(sizes, [7, 2, 1]).samples(np.arange(10_000))
    assert counts_of(samples, sizes) == [7_000, 2_000, 1_000]
    for first in range(0, 9_000, 37):  # any window of whole cycles
        assert counts_of(samples[first : first + 1_000], sizes) == [700, 200, 100]
    for count in range(40):
        drawn = counts_of(samples[:count], sizes)
        assert all(abs(n - count * share) <= 1 for n, share in zip(drawn, (0.7, 0.2, 0.1), strict=True))


def test_each_corpus_has_epochs_of_its_own() -> None:
    sizes = [4, 9]
    order = order_of(sizes, [2, 1])
    samples = order.samples(np.arange(27)).tolist()
    first, second = [n for n in samples if n < 4], [n - 4 for n in samples if n >= 4]
    assert [sorted(first[at : at + 4]) for at in range(0, 16, 4)] == [[0, 1, 2, 3]] * 4
    assert sorted(second) == list(range(9))
    assert order.num_epochs(27) == [18 / 4, 1.0]
    assert order.num_epochs(2) == [1 / 4, 1 / 9]  # the middle of the cycle: 1/4, 1/2, 3/4


@given(draws, seeds, st.integers(min_value=0, max_value=2**40), st.integers(min_value=1, max_value=200))
def test_a_sample_of_a_mixture_depends_on_its_position_alone(
    draws: list[int], seed: int, first: int, count: int
) -> None:
    order = order_of([7 * n + 1 for n in range(len(draws))], draws, seed)
    positions = np.arange(first, first + count)
    together = order.samples(positions).tolist()
    assert together == [order.samples(positions[at : at + 1])[0] for at in range(count)]
    middle = count // 2  # as two processes, or a run that resumes, ask for them
    assert together == [*order.samples(positions[:middle]).tolist(), *order.samples(positions[middle:]).tolist()]
