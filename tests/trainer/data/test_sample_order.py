"""The permutation that draws training samples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import sample_order

sizes = st.integers(min_value=1, max_value=3_000)
seeds = st.integers(min_value=0, max_value=2**31 - 1)


def draw(first: int, count: int, size: int, seed: int) -> list[int]:
    numbers: list[int] = sample_order.shuffled_index(np.arange(first, first + count), size, seed).tolist()
    return numbers


@given(sizes, seeds, st.integers(min_value=0, max_value=5))
def test_each_epoch_draws_every_sequence_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(draw(epoch * size, size, size, seed)) == list(range(size))


@given(sizes, seeds, st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=300))
def test_a_sample_depends_on_its_position_alone(size: int, seed: int, first: int, count: int) -> None:
    together = draw(first, count, size, seed)

    assert together == [draw(first + place, 1, size, seed)[0] for place in range(count)]


def test_epochs_and_seeds_differ_and_nothing_comes_in_order() -> None:
    first, second, other = draw(0, 1000, 1000, 1), draw(1000, 1000, 1000, 1), draw(0, 1000, 1000, 2)

    for one, two in ((first, second), (first, other), (first, list(range(1000)))):
        assert sum(a == b for a, b in zip(one, two, strict=True)) < 10
    neighbours = np.abs(np.diff(first))
    assert 300 < neighbours.mean() < 370  # a third of the size, as of independent draws


def test_each_sequence_is_as_likely_in_each_place() -> None:
    heads = [draw(0, 1, 8, seed)[0] for seed in range(4000)]

    assert max(abs(heads.count(number) - 500) for number in range(8)) < 100


def test_a_size_of_billions_is_drawn_at_once() -> None:
    far = draw(10**15, 4, 10**12, 3)

    assert len(set(far)) == 4
    assert all(0 <= number < 10**12 for number in far)
