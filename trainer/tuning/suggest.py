"""Chooses the values of the next job of a hyperparameter search, by Optuna's tree-structured Parzen estimator.

`python -m trainer.tuning.suggest` reads the search as JSON from its standard input and prints the values as JSON. The
estimator is that of Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011). It knows nothing but
what it is told, so the same search has the same next job. No torch.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

MAX_TRIES = 50  # to choose values that no job has
MIN_RANDOM = 4  # jobs with results, before which values are drawn at random


def suggest(search: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values of the next job, by field, which no job so far has; None if there are probably no others.

    `grid` has the values of a field, `ranges` its `low` and `high`, `is_log` and `is_whole`. `trials` are the jobs so
    far: their `values`, and their `loss`, which is None for one under way and "failed" for one that has none.
    """
    space = _space(search)
    trials = search["trials"]
    sampler = optuna.samplers.TPESampler(
        seed=search["seed"] + len(trials), n_startup_trials=MIN_RANDOM, multivariate=True, constant_liar=True
    )
    study = optuna.create_study(sampler=sampler)
    study.add_trials([_trial(trial, space) for trial in trials])
    tried = [dict(trial["values"]) for trial in trials]
    for _try in range(MAX_TRIES):
        values = study.ask(space).params
        if values not in tried:
            return values
    return None


def _space(search: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    space: dict[str, BaseDistribution] = {name: CategoricalDistribution(v) for name, v in search["grid"].items()}
    for name, bounds in search["ranges"].items():
        is_log = bounds["is_log"]
        if bounds["is_whole"]:
            space[name] = IntDistribution(round(bounds["low"]), round(bounds["high"]), log=is_log)
        else:
            space[name] = FloatDistribution(bounds["low"], bounds["high"], log=is_log)
    return space


def _trial(trial: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    loss = trial["loss"]
    states = {None: TrialState.RUNNING, "failed": TrialState.FAIL}
    state = states.get(loss, TrialState.COMPLETE)
    value = loss if state is TrialState.COMPLETE else None
    return create_trial(state=state, params=dict(trial["values"]), distributions=dict(space), value=value)


def main() -> None:
    """Read a search and print the values."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    json.dump(suggest(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
