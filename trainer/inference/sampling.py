"""Chooses the next token of a text from the scores of a model, by the settings of its request. Imports torch.

The random number of a token is a pure function of seed and position, so a text does not depend on what is generated
beside it.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

MAX_TOP_LOGPROBS = 20


class TokenConstraint(Protocol):
    """What a text may consist of, such as JSON by a schema: asked before each token, told of it after."""

    def mask(self, scores: Tensor) -> None:
        """Set the scores (vocab_size) of tokens that may not follow to minus infinity, in place."""

    def accept(self, token: int) -> None:
        """Continue with a token."""


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are chosen. Penalties and bias as in OpenAI's API; the repetition penalty is that of CTRL
    (https://arxiv.org/abs/1909.05858), which counts the prompt too; min_p as in https://arxiv.org/abs/2407.01082.
    """

    temperature: float = 1.0  # 0: always the likeliest token
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0  # tokens less likely than this fraction of the likeliest one are left out
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    top_logprobs: int | None = None  # alternatives to return with each token, or None for no probabilities at all


@dataclass(frozen=True)
class TokenChoice:
    """A token of the text. Log-probabilities are those of the model, before temperature, penalties and bias."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, most likely first


def choose(
    scores: Tensor,
    settings: SamplingSettings,
    prompt: Sequence[int],
    text: Sequence[int],
    constraint: TokenConstraint | None = None,
) -> TokenChoice:
    """The token that follows prompt and text, from its scores of shape (vocab_size), fp32 on the CPU."""
    adjusted = adjusted_scores(scores, settings, prompt, text)
    if constraint is not None:
        adjusted = adjusted.clone()
        constraint.mask(adjusted)
    token = sampled(adjusted, settings, len(text))
    if constraint is not None:
        constraint.accept(token)
    if settings.top_logprobs is None:
        return TokenChoice(token)
    logprobs = scores.log_softmax(0)
    values, ids = logprobs.topk(min(settings.top_logprobs, len(logprobs)))
    return TokenChoice(token, float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def adjusted_scores(scores: Tensor, settings: SamplingSettings, prompt: Sequence[int], text: Sequence[int]) -> Tensor:
    """The scores with penalties and bias; the argument itself without any."""
    if settings.repetition_penalty != 1:
        ids = torch.tensor(sorted({*prompt, *text}))
        values = scores[ids]
        penalized = torch.where(values < 0, values * settings.repetition_penalty, values / settings.repetition_penalty)
        scores = scores.index_copy(0, ids, penalized)
    if text and (settings.presence_penalty or settings.frequency_penalty):
        counts = Counter(text)
        penalties = [settings.presence_penalty + settings.frequency_penalty * count for count in counts.values()]
        scores = scores.index_add(0, torch.tensor(list(counts)), -torch.tensor(penalties))
    if settings.logit_bias:
        ids = torch.tensor(list(settings.logit_bias))
        scores = scores.index_add(0, ids, torch.tensor(list(settings.logit_bias.values())))
    return scores


def sampled(scores: Tensor, settings: SamplingSettings, position: int) -> int:
    """A token drawn from adjusted scores of shape (vocab_size)."""
    if settings.temperature == 0:
        return int(scores.argmax())
    scores = scores / settings.temperature
    ids = None
    if settings.top_k and settings.top_k < len(scores):
        scores, ids = scores.topk(settings.top_k)
    elif settings.top_p < 1:
        scores, ids = scores.sort(descending=True, stable=True)
    probabilities = scores.softmax(0, dtype=torch.float64)
    if settings.min_p:
        probabilities = probabilities.where(probabilities >= settings.min_p * probabilities.max(), 0)
    cumulative = probabilities.cumsum(0)
    if settings.top_p < 1:
        # The likeliest token stays, then those before which less than top_p is reached.
        limit = settings.top_p * float(cumulative[-1])
        cumulative = cumulative[: int((cumulative < limit).sum()) + 1]
    index = int(torch.searchsorted(cumulative, uniform(settings.seed, position) * float(cumulative[-1]), right=True))
    index = min(index, len(cumulative) - 1)
    return index if ids is None else int(ids[index])


def uniform(seed: int, position: int) -> float:
    """A random number from 0 to below 1 for the token at a position of a text, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return math.ldexp(int.from_bytes(digest) >> 11, -53)
