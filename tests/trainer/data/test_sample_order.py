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
