"""The laws that proposals follow, held against the figures of the papers that they are from."""

import math

import pytest

from trainer.planning.scaling_laws import (
    TOKENS_PER_PARAMETER,
    choose_vocab_size,
    effective_tokens,
    expected_bits_per_byte,
)

BYTES_PER_TOKEN = 96e9 / 22.9e9  # of WebText2, Kaplan et al. 2020, section 2.3


def nats_per_token(num_parameters: int, num_tokens: float) -> float:
    return expected_bits_per_byte(num_parameters, num_tokens) * math.log(2) * BYTES_PER_TOKEN


def test_the_vocabulary_follows_the_text_within_limits() -> None:
    assert [choose_vocab_size(size) for size in (0, 10**9, 10**14)] == [2048, 31_616, 65_536]


@pytest.mark.parametrize(
    ("num_parameters", "nats"),
    [
        # 6 x 2.8e9 x 5.6e10 = 9.4e20 FLOPs are 10.9 PF-days: Kaplan's frontier has (3.1e8 / 10.9)^0.05 = 2.36 nats,
        # and Besiroglu's law 1.82 + 482 / 2.8e9^0.348 + 2085 / 5.6e10^0.366 = 2.32.
        (2_800_000_000, 2.36),
        (1_000_000, 5.22),  # 1.2e14 FLOPs are 1.39e-6 PF-days: (3.1e8 / 1.39e-6)^0.05 = (2.23e14)^0.05
    ],
)
def test_the_loss_with_20_tokens_per_parameter_is_that_of_the_frontier(num_parameters: int, nats: float) -> None:
    assert nats_per_token(num_parameters, TOKENS_PER_PARAMETER * num_parameters) == pytest.approx(nats, rel=0.02)


def test_of_equal_compute_20_tokens_per_parameter_give_the_lowest_loss() -> None:
    compute = 20 * 10**16  # parameters times tokens
    sizes = [10**8 * factor // 100 for factor in (25, 50, 80, 100, 125, 200, 400)]
    losses = [expected_bits_per_byte(size, compute / size) for size in sizes]
    assert min(losses) == losses[3]
    assert losses[:3] == sorted(losses[:3], reverse=True)
    assert losses[3:] == sorted(losses[3:])


def test_repeated_text_is_worth_ever_less() -> None:
    # Muennighoff et al. 2023: U + U R* (1 - e^(-R / R*)) with R* = 15.4, by hand: four epochs are 3.73, sixteen 10.6.
    assert effective_tokens(100, 1000) == 100
    assert effective_tokens(4000, 1000) == pytest.approx(3730, rel=0.002)
    assert effective_tokens(16_000, 1000) == pytest.approx(10_590, rel=0.002)
    assert effective_tokens(10**9, 1000) == pytest.approx(16_400)
