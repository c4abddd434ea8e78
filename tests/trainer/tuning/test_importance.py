"""Which field of a search decides about its result: planted functions, and Optuna asked directly."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from trainer.tuning.importance import distribution, importance


def planted(values: dict[str, Any]) -> float:
    """A loss that the learning rate decides; the weight decay hardly matters, and the seed not at all."""
    return (math.log10(values["learning_rate"]) + 2.5) ** 2 + 0.02 * float(values["weight_decay"])


def random_trials(count: int) -> list[dict[str, Any]]:
    generator = random.Random(1)
    rows = [
        {
            "learning_rate": 10 ** generator.uniform(-4, -1),
            "weight_decay": generator.uniform(0, 1),
            "seed": generator.randint(1, 99),
        }
        for _number in range(count)
    ]
    return [{"values": row, "loss": planted(row)} for row in rows]


def grid_trials() -> list[dict[str, Any]]:
    rows = [
        {"learning_rate": rate, "weight_decay": decay, "seed": seed}
        for rate in (1e-4, 1e-3, 3e-3, 1e-1)
        for decay in (0.0, 0.5, 1.0)
        for seed in (1, 2)
    ]
    return [{"values": row, "loss": planted(row)} for row in rows]


@pytest.mark.parametrize("trials", [random_trials(50), grid_trials()], ids=["random", "grid"])
def test_the_field_that_decides_explains_nearly_all_and_one_without_effect_nearly_nothing(
    trials: list[dict[str, Any]],
) -> None:
    shares = importance(trials)
    assert list(shares) == ["learning_rate", "weight_decay", "seed"]
    assert shares["learning_rate"] > 0.85
    assert shares["seed"] < 0.08
    assert sum(shares.values()) == pytest.approx(1)


def test_the_best_jobs_are_those_with_the_least_loss() -> None:
    trials: list[dict[str, Any]] = [
        # `a` separates the best third from the others, `b` the worst third.
        {"values": {"a": "good" if n < 6 else "bad", "b": "bad" if n >= 12 else "good"}, "loss": float(n)}
        for n in range(18)
    ]
    shares = importance(trials)
    assert shares["a"] > 0.75 > shares["b"]
    upside_down = importance([{**trial, "loss": -trial["loss"]} for trial in trials])
    assert upside_down["b"] > 0.75 > upside_down["a"]


def test_the_shares_are_those_of_optuna_asked_directly() -> None:
    trials = random_trials(30)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rates = [trial["values"]["learning_rate"] for trial in trials]
    decays = [trial["values"]["weight_decay"] for trial in trials]
    seeds = [trial["values"]["seed"] for trial in trials]
    space = {
        "learning_rate": FloatDistribution(min(rates), max(rates), log=True),
        "weight_decay": FloatDistribution(min(decays), max(decays), log=max(decays) / min(decays) > 20),
        "seed": IntDistribution(min(seeds), max(seeds), log=max(seeds) / min(seeds) > 20),
    }
    for trial in trials:
        study.enqueue_trial(trial["values"])
        study.tell(study.ask(space), trial["loss"])
    direct = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=1 / 3))
    assert importance(trials) == pytest.approx(direct)


def test_jobs_with_the_same_loss_say_nothing_about_any_field() -> None:
    trials = [{**trial, "loss": 2.0} for trial in random_trials(12)]
    assert set(importance(trials).values()) == {0.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 16], IntDistribution(1, 16)),
        ([1, 2, 21], IntDistribution(1, 21, log=True)),
        ([0, 100], IntDistribution(0, 100)),
        ([0.001, 0.1], FloatDistribution(0.001, 0.1, log=True)),
        ([0, 0.5], FloatDistribution(0, 0.5)),
        ([None, 8, None], CategoricalDistribution([None, 8])),
        ([True, False], CategoricalDistribution([True, False])),
        (["cosine", "linear"], CategoricalDistribution(["cosine", "linear"])),
    ],
    ids=str,
)
def test_numbers_lie_on_a_line_and_other_values_are_categories(values: list[Any], expected: Any) -> None:
    assert distribution(values) == expected


def test_it_runs_as_a_child_that_answers_one_line(root: Path) -> None:
    trials = grid_trials()
    child = subprocess.run(
        [sys.executable, "-m", "trainer.tuning.importance"],
        input=json.dumps(trials),
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(child.stdout) == importance(trials)
    assert child.stderr == ""
