"""The curves of a job as a CSV file: a line for each step, a column for each series, read in pages of bounded size."""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import db
from app.core.models import MetricPoint, MetricRollup

STEPS_PER_PAGE = 2_000


def chunks(job_id: str) -> Iterator[bytes]:
    """The file in pieces, each read in a transaction of its own. Values have all their digits; nan, inf are words."""
    with db.transaction() as session:
        names = list(session.scalars(select(MetricRollup.series).where(MetricRollup.job_id == job_id).distinct()))
    names.sort()
    yield _lines([["step", "time", *names]])
    step = -1
    while True:
        with db.transaction() as session:
            rows = _page(session, job_id, step, names)
        if not rows:
            return
        yield _lines(rows)
        step = int(rows[-1][0])


def _page(session: Session, job_id: str, after: int, names: Sequence[str]) -> list[list[Any]]:
    """The lines of the next steps."""
    of_job = (MetricPoint.job_id == job_id, ~MetricPoint.archived, MetricPoint.step > after)
    steps = select(MetricPoint.step).where(*of_job).distinct().order_by(MetricPoint.step).limit(STEPS_PER_PAGE)
    query = select(MetricPoint.step, MetricPoint.series, MetricPoint.value, MetricPoint.nonfinite, MetricPoint.at)
    points = session.execute(query.where(*of_job, MetricPoint.step.in_(steps)).order_by(MetricPoint.step))
    return [_line(step, list(group), names) for step, group in groupby(points, key=lambda point: point.step)]


def _line(step: int, points: Sequence[Any], names: Sequence[str]) -> list[Any]:
    values = {point.series: point.nonfinite or repr(point.value) for point in points}
    times: list[datetime] = [point.at for point in points if point.at is not None]
    return [step, max(times).isoformat() if times else "", *(values.get(name, "") for name in names)]


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
