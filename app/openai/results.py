"""What a job that succeeded measured, as a CSV file: one row for each step at which something was measured."""

import csv
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.core import storage
from app.core.model_base import new_id
from app.core.models import Job, MetricPoint
from app.core.principal import Principal, visible_to

FILENAME = "step_metrics.csv"
COLUMNS = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    "valid_loss": "eval_loss",
    "valid_mean_token_accuracy": "eval_accuracy",
}  # columns of the file by the series that fill them


def jobs(principal: Principal) -> Select[Any]:
    """The jobs of a user that have results."""
    return select(Job).where(visible_to(Job.owner_id, principal), Job.state == "succeeded")


def file(session: Session, job: Job) -> Path:
    """The file of a job that succeeded, written at first use. The job's deletion removes it."""
    path = storage.run(job.id) / "results" / FILENAME
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{new_id()}")
        _write(session, job.id, unfinished)
        os.replace(unfinished, path)
    return path


def _write(session: Session, job_id: str, path: Path) -> None:
    query = select(MetricPoint.step, MetricPoint.series, MetricPoint.value, MetricPoint.nonfinite).where(
        MetricPoint.job_id == job_id, ~MetricPoint.archived, MetricPoint.series.in_(COLUMNS.values())
    )
    names = {series: column for column, series in COLUMNS.items()}
    with path.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, ["step", *COLUMNS], restval="", lineterminator="\n")
        table.writeheader()
        row: dict[str, Any] = {}
        for point in session.execute(query.order_by(MetricPoint.step), execution_options={"yield_per": 1000}):
            if row and row["step"] != point.step:
                table.writerow(row)
                row = {}
            row |= {"step": point.step, names[point.series]: point.nonfinite or point.value}
        if row:
            table.writerow(row)
