"""How much each field of a hyperparameter search decides about the result, by Optuna's PED-ANOVA.

`python -m trainer.tuning.importance` reads the jobs as JSON from its standard input and prints the shares as JSON. The
method is that of Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces"
(IJCAI 2023): how far the values of the best jobs differ from those of all. Unlike fANOVA it needs no scikit-learn, and
it does not mind that a sampler tries some values more often than others. No torch.
"""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

BEST_SHARE = 1 / 3  # of the jobs that count as the best
LOG_SPAN = 20  # numbers that span more than this factor lie on a logarithmic scale


def importance(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of each field in what separates the best third of the jobs from all, by field; they add up to 1.

    `trials` are the `values` of each job, by field and the same fields in all, and its finite `loss`, of which less is
    better. A field with one value has the share 0, and so have all if no job is better than another.
    """
    values: dict[str, list[Any]] = {name: [trial["values"][name] for trial in trials] for name in trials[0]["values"]}
    space = {name: distribution(column) for name, column in values.items()}
    study = optuna.create_study()
    study.add_trials(
        [create_trial(params=dict(trial["values"]), distributions=space, value=trial["loss"]) for trial in trials]
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that not normalizing is experimental; normalized, nothing looks like something
        weights = get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(weights.values())
    return {name: weights[name] / total if total > 0 else 0.0 for name in values}


def distribution(values: Sequence[Any]) -> BaseDistribution:
    """Where values of a field lie: between their least and greatest if all are numbers, else among these."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(values), max(values)
    is_log = low > 0 and high / low > LOG_SPAN
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=is_log)
    return FloatDistribution(low, high, log=is_log)


def main() -> None:
    """Read the jobs and print the shares."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    json.dump(importance(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
