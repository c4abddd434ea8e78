"""The values that Optuna chooses for the next job of a search."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.tuning.suggest import MIN_RANDOM, suggest

RANGES = {"learning_rate": {"low": 1e-5, "high": 1e-1, "is_log": True, "is_whole": False}}
GRID = {"tuning": ["full", "lora"], "lora_rank": [8, None]}


def search(trials: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"grid": {}, "ranges": RANGES, "seed": 3, "trials": trials, **fields}


def chosen_for(question: dict[str, Any]) -> dict[str, Any]:
    values = suggest(question)
    assert values is not None
    return values


def run(losses: dict[float, float]) -> list[dict[str, Any]]:
    return [{"values": {"learning_rate": rate}, "loss": loss} for rate, loss in losses.items()]


def test_values_lie_in_their_ranges_and_are_those_of_the_grid() -> None:
    layers = {"num_hidden_layers": {"low": 1, "high": 4, "is_log": False, "is_whole": True}}
    trials: list[dict[str, Any]] = []
    for _number in range(12):
        values = chosen_for(search(trials, grid=GRID, ranges={**RANGES, **layers}))
        assert 1e-5 <= values["learning_rate"] <= 1e-1
        assert values["num_hidden_layers"] in (1, 2, 3, 4)
        assert type(values["num_hidden_layers"]) is int
        assert values["tuning"] in GRID["tuning"]
        assert values["lora_rank"] in GRID["lora_rank"]
        trials.append({"values": values, "loss": "failed" if len(trials) % 3 else None})
    assert len({json.dumps(trial["values"]) for trial in trials}) > 8


def test_the_same_search_has_the_same_next_job_and_another_result_another_one() -> None:
    rates = {10.0**-n: abs(n - 3.0) for n in (1, 2, 3, 4, 5)}
    first = suggest(search(run(rates)))
    assert first == suggest(search(run(rates)))
    assert first != suggest(search(run({rate: -loss for rate, loss in rates.items()})))


def test_values_near_the_best_results_are_chosen_more_often_than_at_random() -> None:
    trials = run({10 ** -(1 + 4 * n / 15): abs(3 - (1 + 4 * n / 15)) for n in range(16)})  # the best is 1e-3
    chosen = [chosen_for(search(trials, seed=seed))["learning_rate"] for seed in range(20)]
    at_random = [chosen_for(search(trials[: MIN_RANDOM - 1], seed=seed))["learning_rate"] for seed in range(20)]
    near, near_at_random = (sum(10**-3.5 < rate < 10**-2.5 for rate in rates) for rates in (chosen, at_random))
    assert near >= 14 > 10 > near_at_random  # a quarter of the logarithms is near


def test_values_that_were_tried_are_not_chosen_again_and_used_up_ones_end_the_search() -> None:
    grid = {"seed": [1, 2, 3], "tuning": ["full", "lora"]}
    trials: list[dict[str, Any]] = []
    while (values := suggest(search(trials, grid=grid, ranges={}))) is not None:
        trials.append({"values": values, "loss": float(len(trials))})
    assert len(trials) == len({json.dumps(trial["values"], sort_keys=True) for trial in trials}) == 6


@pytest.mark.parametrize("trials", [[], [{"values": {"learning_rate": 0.001}, "loss": 2.5}]])
def test_it_runs_as_a_child_that_answers_one_line(trials: list[dict[str, Any]], root: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "trainer.tuning.suggest"],
        input=json.dumps(search(trials)),
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(child.stdout) == suggest(search(trials))
    assert child.stderr == ""
