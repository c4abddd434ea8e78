"""Evaluation needs no more memory than training, and both no more than planned, where logits are most of it."""

import json
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.bench.scripts import measure_memory

VOCAB_SIZE, LENGTH, FP32 = 32_768, 64, 4
CAUSAL: tuple[dict[str, Any], int] = ({"model_type": "llama", "objective": "causal"}, 64)
# Objectives that compute the logits of a micro-batch at once, in evaluation as in training.
WHOLE_LOGITS: dict[str, tuple[dict[str, Any], int]] = {
    "masked": ({"model_type": "bert", "objective": "masked"}, 16),
    "seq2seq": ({"model_type": "t5", "objective": "seq2seq"}, 16),
    "dpo": ({"model_type": "llama", "objective": "dpo", "base_model": "b"}, 8),
}


@pytest.fixture(scope="module")
def measured(fork_server: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Figures of bench/accuracy.py by objective."""
    kinds = {"causal": CAUSAL, **WHOLE_LOGITS}
    path: Path = tmp_path_factory.mktemp("accuracy") / "results.json"
    process = fork_server.Process(target=measure_memory, args=(path, list(kinds.values())))
    process.start()
    process.join()
    assert process.exitcode == 0
    return dict(zip(kinds, json.loads(path.read_text()), strict=True))


def test_a_chunked_loss_needs_no_more_memory_than_planned(measured: dict[str, dict[str, float]]) -> None:
    figures = measured["causal"]
    whole_logits = CAUSAL[1] * LENGTH * VOCAB_SIZE * FP32  # of one micro-batch, which must never exist at once
    assert figures["memory_inside"], figures
    assert figures["peak"] < 2 * whole_logits


@pytest.mark.parametrize("objective", WHOLE_LOGITS)
def test_evaluating_full_logits_needs_less_memory_than_training(
    measured: dict[str, dict[str, float]], objective: str
) -> None:
    figures = measured[objective]
    assert figures["memory_inside"], figures
    assert figures["evaluation_peak"] < figures["peak"] - 20 * 2**20, figures
