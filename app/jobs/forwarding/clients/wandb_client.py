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
    description = {} if first else _description(job)
    run = _open(job["id"], is_over=is_over, **description)
    last = first + len(rows)
    try:
        if run.starting_step < first:
            raise LostRows(f"W&B has {run.starting_step} of {first} rows")
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        for number in range(max(first, run.starting_step), last):
            step, at, values = rows[number - first]
            numbers = {name: float(value) for name, value in values.items()}
            run.log({**numbers, STEP: step, "_timestamp": at / 1000}, step=number)
        if is_over:
            run.summary.update({"state": job["state"], "failure": job["failure"] or ""})
    finally:
        run.finish(exit_code=0 if job["state"] != "failed" else 1)
    if is_over:
        _check(job["id"], last)
    return {"rows": last, "url": run.url or ""}


def _description(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": job["name"],
        "tags": job["tags"],
        "notes": job["notes"] or None,
        "config": {**job["parameters"], "athanor": {"job_id": job["id"], "owner": job["owner"]}},
    }


def _open(run_id: str, *, is_over: bool, **description: Any) -> Any:
    """Begin a session of a run. Only the last one ends the run itself."""
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
    return wandb.init(id=run_id, resume="allow", reinit="create_new", dir=directory, settings=settings, **description)


def _check(run_id: str, num_rows: int) -> None:
    """Ask once more, as no later session does."""
    run = _open(run_id, is_over=False)
    num_there = run.starting_step
    run.finish()
    if num_there < num_rows:
        raise LostRows(f"W&B has {num_there} of {num_rows} rows")
