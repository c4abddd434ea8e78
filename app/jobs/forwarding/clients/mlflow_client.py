"""Forwards to MLflow, by its own client (mlflow-skinny).

MLflow keeps one value of a metric for each step, time and value: a batch that is sent again changes nothing. A run
carries the ID of its job as a tag, by which it is looked up if its creation was not recorded.
"""

import os
from functools import cache
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param
from mlflow.exceptions import MlflowException

MAX_METRICS = 1_000  # of a request, as MLflow allows
MAX_PARAMETERS = 100
MAX_VALUE_LENGTH = 6_000  # of a parameter
JOB_TAG = "athanor.job_id"
STATUSES = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def forward(job: dict[str, Any], rows: list[Any], remote: dict[str, Any], is_over: bool) -> dict[str, Any]:
    """Log rows to the run of a job, and end it if it is over. Raises MlflowException."""
    run_id = remote.get("run_id") or _begin(job)
    metrics = [Metric(name, float(value), at, step) for step, at, values in rows for name, value in values.items()]
    for begin in range(0, len(metrics), MAX_METRICS):
        _client().log_batch(run_id, metrics=metrics[begin : begin + MAX_METRICS])
    if is_over:
        for name, value in _tags(job).items():
            _client().set_tag(run_id, name, value)
        _client().set_terminated(run_id, STATUSES[job["state"]], job["finished"])
    return {"run_id": run_id, "url": _url(run_id)}


@cache
def _client() -> MlflowClient:
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


@cache
def _experiment_id() -> str:
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    experiment: Experiment | None = _client().get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        return str(_client().create_experiment(name))
    except MlflowException:  # another installation was faster
        experiment = _client().get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def _begin(job: dict[str, Any]) -> str:
    """The run of a job, with its parameters; an earlier process may have created it."""
    runs = _client().search_runs([_experiment_id()], f"tags.`{JOB_TAG}` = '{job['id']}'", max_results=1)
    if runs:
        run = runs[0]
    else:
        started = job["started"] or job["created"]
        run = _client().create_run(_experiment_id(), start_time=started, tags=_tags(job), run_name=job["name"])
    run_id = str(run.info.run_id)
    new = job["parameters"].keys() - run.data.params.keys()  # MLflow refuses other values than those it has
    parameters = [Param(name, str(job["parameters"][name])[:MAX_VALUE_LENGTH]) for name in sorted(new)]
    for begin in range(0, len(parameters), MAX_PARAMETERS):
        _client().log_batch(run_id, params=parameters[begin : begin + MAX_PARAMETERS])
    return run_id


def _tags(job: dict[str, Any]) -> dict[str, str]:
    texts = {
        JOB_TAG: job["id"],
        "athanor.state": job["state"],
        "athanor.tags": ", ".join(job["tags"]),
        "athanor.failure": job["failure"],
        "mlflow.runName": job["name"],
        "mlflow.user": job["owner"],
        "mlflow.note.content": job["notes"],
    }
    return {name: text for name, text in texts.items() if text}


def _url(run_id: str) -> str:
    """The page of a run; empty where MLflow is no server."""
    uri = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    return f"{uri}/#/experiments/{_experiment_id()}/runs/{run_id}" if uri.startswith("http") else ""
