"""Forwards to Weights & Biases, or a server that speaks its protocol, by its own library.

A batch is a short session of the run, which ends when the server has everything. The library does not say when a
server refused rows for good. So each session asks how many rows the run has: rows that it has are not sent again, and
if earlier ones are missing, the job is sent from its start. A row is a line of the journal, its number W&B's `_step`.
"""

import os
from typing import Any

import wandb

from app.jobs.forwarding.clients.errors import LostRows

STEP = "train/global_step"  # the axis of all charts, as transformers' callback has it
INIT_SECONDS = 40.0


def forward(job: dict[str, Any], rows: list[Any], remote: dict[str, Any], is_over: bool) -> dict[str, Any]:
    """Log rows to the run of a job, and end it if it is over. Raises LostRows, and errors of wandb."""
    first = remote.get("rows", 0)
    last = first + len(rows)
    url = _log(job, rows, first)
    if is_over:
        _end(job, last)
    return {"rows": last, "url": url}


def _log(job: dict[str, Any], rows: list[Any], first: int) -> str:
    """Send rows, of which `first` is the number of the first one. Returns the address of the run's page."""
    run = _open(job["id"], first, is_over=False, **({} if first else _description(job)))
    try:
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        for number, (step, at, values) in enumerate(rows, first):  # the library leaves out those below starting_step
            numbers = {name: float(value) for name, value in values.items()}
            run.log({**numbers, STEP: step, "_timestamp": at / 1000}, step=number)
    finally:
        run.finish()
    return str(run.url or "")


def _end(job: dict[str, Any], num_rows: int) -> None:
    """End the run in a session of its own, which finds out whether all rows have arrived."""
    run = _open(job["id"], num_rows, is_over=True)
    run.summary.update({"state": job["state"], "failure": job["failure"] or ""})
    run.finish(exit_code=0 if job["state"] == "succeeded" else 1)


def _description(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": job["name"],
        "tags": job["tags"],
        "notes": job["notes"] or None,
        "config": {**job["parameters"], "athanor": {"job_id": job["id"], "owner": job["owner"]}},
    }


def _open(run_id: str, num_rows: int, *, is_over: bool, **description: Any) -> Any:
    """Begin a session of a run that has so many rows. If the job is over, its end ends the run itself.

    Raises LostRows if there are fewer.
    """
    settings = wandb.Settings(
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_update_finish_state=is_over,
        disable_code=True,
        disable_git=True,
        console="off",
        silent=True,
        init_timeout=INIT_SECONDS,
    )
    directory = os.environ["TMPDIR"]
    run = wandb.init(id=run_id, resume="allow", reinit="create_new", dir=directory, settings=settings, **description)
    if run.starting_step < num_rows:
        run.finish()
        raise LostRows("wandb_rows_lost", rows=run.starting_step, num_rows=num_rows)
    return run
