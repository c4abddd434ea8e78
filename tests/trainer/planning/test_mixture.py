"""Shares of several corpora, against hand arithmetic."""

from typing import Any

import pytest

from tests.trainer.runs import small_spec
from trainer.planning.mixture import corpus_shares, draws_per_cycle
from trainer.spec import TrainSpec
from trainer.spec_errors import SpecError


def mixed(count: int, **fields: Any) -> TrainSpec:
    return small_spec(corpora=[str(n) for n in range(count)], **fields)


@pytest.mark.parametrize(
    ("weights", "draws"),
    [
        ([2, 1], [2, 1]),
        ([10, 20, 10], [1, 2, 1]),
        ([0.7, 0.2, 0.1], [7, 2, 1]),
        ([1.5, 0.25], [6, 1]),
        ([0.3333, 0.6667], [3333, 6667]),
        ([1, 0.9999999], [5000, 5000]),  # 10,000,000 to 9,999,999 is more than a cycle can have
        ([1_000_000, 1], [10_000, 1]),
    ],
)
def test_weights_keep_their_ratio_in_the_smallest_cycle(weights: list[float], draws: list[int]) -> None:
    assert draws_per_cycle(mixed(len(weights), corpus_weights=weights), [5] * len(weights)) == draws


@pytest.mark.parametrize(
    ("temperature", "draws"),
    [(1, [16, 1]), (2, [4, 1]), (4, [2, 1]), (100, [5069, 4931])],  # 16 ** (1 / 100) = 1.0281
)
def test_a_temperature_takes_a_root_of_the_sizes(temperature: float, draws: list[int]) -> None:
    assert draws_per_cycle(mixed(2, corpus_temperature=temperature), [1600, 100]) == draws


def test_without_weights_there_is_no_cycle() -> None:
    assert draws_per_cycle(mixed(2), [3, 4]) is None


def test_shares_are_of_the_tokens_that_are_seen() -> None:
    shares = corpus_shares([1000, 100], [0.5, 15])  # 500 and 1500 tokens
    assert [(share.share, share.num_epochs) for share in shares] == [(0.25, 0.5), (0.75, 15)]


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"corpus_weights": [1, 2, 3]}, "corpus_weights", "one number for each of the corpora in their order (2)"),
        ({"corpus_weights": [1, 0]}, "corpus_weights.1", "greater than"),
        ({"corpus_weights": ["2", "x"]}, "corpus_weights.1", "must be a number"),
        ({"corpus_weights": "2, 1"}, "corpus_weights", "must be a list"),
        ({"corpus_weights": [1, 2], "corpus_temperature": 2}, "corpus_temperature", "choose one of the two"),
        ({"corpus_temperature": 0.5}, "corpus_temperature", "must be at least 1"),
    ],
)
def test_weights_that_do_not_fit_are_refused(fields: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(SpecError) as refused:
        mixed(2, **fields)
    (problem,) = refused.value.problems
    assert problem.field == field
    assert why in str(problem.message)


def test_the_defaults_leave_the_hash_of_a_spec_as_it_was() -> None:
    assert small_spec().sha256() == "69f19e26ad79b712735e621180dec2f9a90ddbffd81e5b4118679e30b676c211"
    hashes = {mixed(2, **more).sha256() for more in ({}, {"corpus_weights": [1, 1]}, {"corpus_temperature": 1})}
    assert len(hashes) == 3
