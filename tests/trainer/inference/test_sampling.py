"""Sampling: each setting as transformers or plain arithmetic has it, and random numbers that depend on nothing else."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from trainer.inference.sampling import SamplingSettings, adjusted_scores, choose, sampled, uniform

SCORES = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
DRAWS = 4_000


def shares(settings: dict[str, float], scores: torch.Tensor = SCORES) -> torch.Tensor:
    """How often each token is drawn."""
    tokens = Counter(sampled(scores, SamplingSettings(seed=seed, **settings), 0) for seed in range(DRAWS))  # type: ignore[arg-type]
    return torch.tensor([tokens[number] / DRAWS for number in range(len(scores))])


@pytest.mark.parametrize(
    ("settings", "warper"),
    [
        ({}, None),
        ({"top_k": 3}, TopKLogitsWarper(3)),
        ({"top_p": 0.8}, TopPLogitsWarper(0.8)),
        ({"min_p": 0.2}, MinPLogitsWarper(0.2)),
    ],
)
def test_tokens_are_drawn_with_the_probabilities_of_transformers(settings: dict[str, float], warper: object) -> None:
    for temperature in (0.5, 1.0, 1.7):
        scores = SCORES[None] / temperature
        expected = (warper(None, scores) if warper else scores).softmax(-1)[0]  # type: ignore[operator]

        drawn = shares({"temperature": temperature, **settings})

        assert bool((drawn[expected == 0] == 0).all()), "no token is drawn that the setting leaves out"
        assert torch.allclose(drawn, expected, atol=4 * 0.5 / DRAWS**0.5)


def test_top_k_and_top_p_together_are_those_of_transformers() -> None:
    expected = TopPLogitsWarper(0.7)(None, TopKLogitsWarper(4)(None, SCORES[None])).softmax(-1)[0]

    assert torch.allclose(shares({"top_k": 4, "top_p": 0.7}), expected, atol=4 * 0.5 / DRAWS**0.5)


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[0, 4, 5]]), SCORES[None])[0]

    assert torch.equal(adjusted_scores(SCORES, SamplingSettings(repetition_penalty=1.3), [4, 0], [5]), expected)


def test_presence_and_frequency_penalties_count_the_text_only() -> None:
    settings = SamplingSettings(presence_penalty=0.5, frequency_penalty=0.25)

    adjusted = adjusted_scores(SCORES, settings, [0, 0], [1, 1, 3])

    assert adjusted.tolist() == [2.0, 1.0 - 0.5 - 2 * 0.25, 0.5, -0.5 - 0.25, -1.0, -3.0]


def test_a_bias_is_added_and_leaves_the_reported_probability() -> None:
    choice = choose(SCORES, SamplingSettings(temperature=0, logit_bias={5: 100.0}, top_logprobs=1), [], [])

    assert choice.token == 5
    assert choice.logprob == pytest.approx(float(SCORES.log_softmax(0)[5]))
    assert choice.top[0][0] == 0
    assert SCORES.tolist() == [2.0, 1.0, 0.5, 0.0, -1.0, -3.0], "the scores are not changed"


def test_a_constraint_is_asked_before_each_token_and_told_of_it_after() -> None:
    class OnlyFour:
        accepted: list[int] = []

        def mask(self, scores: torch.Tensor) -> None:
            scores[torch.arange(len(scores)) != 4] = -torch.inf

        def accept(self, token: int) -> None:
            self.accepted.append(token)

    constraint = OnlyFour()
    for settings in (SamplingSettings(temperature=0), SamplingSettings(seed=1), SamplingSettings(top_p=0.5)):
        assert choose(SCORES, settings, [], [], constraint).token == 4

    assert constraint.accepted == [4, 4, 4]


@given(st.integers(0, 2**31), st.integers(0, 10_000))
def test_random_numbers_depend_on_seed_and_position_only(seed: int, position: int) -> None:
    number = uniform(seed, position)

    assert 0 <= number < 1
    assert number == uniform(seed, position) != uniform(seed, position + 1)


def test_random_numbers_stay_what_they_are_from_version_to_version() -> None:
    assert uniform(7, 3) == (0x4E4B90B6FB05A1B6 >> 11) / 2**53, "printf 7/3 | b2sum -l 64"
