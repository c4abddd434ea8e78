"""The checks of the first step: they pass where a run is sound, and stop it where it is not."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import make_run, of_kind, series, small_spec
from trainer.data.batch import IGNORE_INDEX
from trainer.modeling.build import init_model
from trainer.modeling.objectives import objective
from trainer.run_dir import RunDir
from trainer.training.sanity_checks import initial_loss_bounds, labeled_fraction

CLASSIFIED = {"objective": "classification", "num_key_value_heads": 4}
SHAPES: list[dict[str, Any]] = [
    {"model_type": "llama"},
    {"model_type": "llama", "tie_word_embeddings": False},
    {"model_type": "qwen2"},
    {"model_type": "gpt2", "num_key_value_heads": 4},
    {"model_type": "bert", "objective": "masked", "num_key_value_heads": 4},
    {"model_type": "roberta", "objective": "masked", "num_key_value_heads": 4},
    {"model_type": "t5", "objective": "span_corruption", "num_key_value_heads": 4},
    {"model_type": "bert", **CLASSIFIED},
    {"model_type": "gpt2", **CLASSIFIED},
    {"model_type": "llama", **CLASSIFIED},
]


@pytest.mark.parametrize("hidden_size", [32, 512])
@pytest.mark.parametrize("fields", SHAPES, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_an_untrained_model_has_the_loss_of_a_uniform_guess(fields: dict[str, Any], hidden_size: int) -> None:
    spec = small_spec(hidden_size=hidden_size, intermediate_size=64, **{"vocab_size": None, **fields})
    is_classifier = spec.objective == "classification"
    of = objective(
        spec, init_model(spec, 1000, 0, 1, torch.device("cpu"), ["a", "b", "c"] if is_classifier else [])
    ).eval()
    torch.manual_seed(3)
    ids = 2 + torch.multinomial(1 / torch.arange(1, 999).float(), 16 * 33, replacement=True).view(
        16, 33
    )  # as words are
    given = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    if is_classifier:
        given = {"input_ids": ids[:, :-1], "labels": ids[:, 0] % 3, "attention_mask": torch.ones_like(ids[:, :-1])}
    elif spec.model_type == "t5":
        given = {"input_ids": ids[:, :-1], "labels": ids[:, 1:9], "decoder_input_ids": ids[:, :8]}
    with torch.no_grad():
        loss = float(of(**given)[0]) / given["labels"].numel()

    bounds = initial_loss_bounds(spec, 3 if is_classifier else 1000, given["labels"].numel())
    assert bounds is not None
    assert bounds[0] < loss < bounds[1]


def test_the_initial_loss_of_a_base_model_is_bounded_for_preferences_only() -> None:
    assert initial_loss_bounds(small_spec(base_model="base"), 1000, 64) is None
    bounds = initial_loss_bounds(small_spec(base_model="base", objective="dpo"), 1000, 64)
    assert bounds == pytest.approx((math.log(2), math.log(2)), abs=0.02)


def test_the_trained_fraction_counts_tokens_with_a_label_and_a_weight() -> None:
    labels = np.asarray([[5, 6, 7, IGNORE_INDEX]])

    assert labeled_fraction({"labels": labels}) == 0.75
    assert labeled_fraction({"labels": labels, "weights": np.asarray([[0.0, 0.0, 0.5, 0.0]])}) == 0.25
    answered = np.asarray([[False, True, True, True]])
    assert labeled_fraction({"labels": labels, "answered": answered, "weights": np.ones(1)}) == 0.5


def test_a_run_reports_its_checks(trained: RunDir) -> None:
    found = {event.check: event for event in of_kind(trained, "check")}

    assert list(found) == ["trained_share", "blind_loss", "whole_loss"]
    assert found["trained_share"].found == 1
    assert found["blind_loss"].found == pytest.approx(series(trained, "loss")[1], rel=1e-5)
    assert found["whole_loss"].found == series(trained, "loss")[1]
    assert all(event.least <= event.found <= event.most for event in found.values())
    assert "check whole_loss: " in trained.log_path.read_text()


def test_a_loss_that_differs_from_the_full_batch_stops_the_run(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "not-whole")

    assert fork_server.run(run_dir, ATHANOR_FAULT="spike@1") == 64

    (failure,) = of_kind(run_dir, "failure")
    assert (failure.code, failure.values["check"]) == ("check_failed", "whole_loss")
    assert failure.values["found"] == pytest.approx(100 * failure.values["least"], rel=1e-3)
    assert not of_kind(run_dir, "checkpoint")
