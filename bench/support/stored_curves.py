"""Long curves in the database, as the product stores them, written by a few statements instead of point by point."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, text

from app.core import db
from app.core.models import MetricRollup
from app.jobs.attempts import metrics
from app.jobs.attempts.metrics import LEVELS, Point

# A loss that falls from 10 to 2, with some noise; multiples of 1/1024, so that sums are exact in any order.
POINTS = """
INSERT INTO metric_point (job_id, series, step, fence, seq, value, at)
SELECT job_id, 'loss', step, 1, step,
       2 + floor(8192 * exp(-5::float8 * step / :num_points)) / 1024 + (hashint4(step) & 127) / 1024::float8,
       timestamptz '2026-01-01' + step * interval '10 ms'
FROM unnest(CAST(:job_ids AS text[])) AS job_id CROSS JOIN generate_series(1, :num_points) AS step
"""
SPIKE = "UPDATE metric_point SET value = :value WHERE job_id = ANY(:job_ids) AND series = 'loss' AND step = :step"
NAN = (
    "UPDATE metric_point SET value = NULL, nonfinite = 'nan' "
    "WHERE job_id = ANY(:job_ids) AND series = 'loss' AND step = :step"
)
ROLLUP = (
    "INSERT INTO metric_rollup (job_id, series, level, bucket, count, num_nonfinite, sum, min, max, last_step, last) "
)
FIRST_LEVEL = f"""{ROLLUP}
SELECT job_id, series, 1, step >> 2, count(value), count(nonfinite), coalesce(sum(value), 0), min(value), max(value),
       max(step), (array_agg(value ORDER BY step DESC))[1]
FROM metric_point WHERE job_id = ANY(:job_ids) GROUP BY job_id, series, step >> 2
"""
NEXT_LEVEL = f"""{ROLLUP}
SELECT job_id, series, :level, bucket >> 2, sum(count), sum(num_nonfinite), sum(sum), min(min), max(max),
       max(last_step), (array_agg(last ORDER BY last_step DESC))[1]
FROM metric_rollup WHERE job_id = ANY(:job_ids) AND level = :level - 1 GROUP BY job_id, series, bucket >> 2
"""
JOBS = "UPDATE job SET step = :num_points, max_steps = :num_points WHERE id = ANY(:job_ids)"
ATTEMPTS = "UPDATE attempt SET journal_seq = :num_points, resume_step = 0 WHERE job_id = ANY(:job_ids)"
COLUMNS = [column for column in MetricRollup.__table__.columns if column.name != "job_id"]


@dataclass(frozen=True)
class Planted:
    """Points that a curve must show in any width: spikes of one step, by step, and steps with NaN."""

    spikes: dict[int, float] = field(default_factory=dict)
    nans: frozenset[int] = frozenset()

    def not_shown(self, curve: dict[str, Any], start: int, end: int) -> list[int]:
        """The planted steps from start to end that an answer of the API or an event does not show."""
        highest = set(curve["max"])
        marks = {step for step, value in zip(curve["steps"], curve["values"], strict=True) if value == "nan"}
        hidden = [step for step, value in self.spikes.items() if value not in highest]
        return [step for step in (*hidden, *(self.nans - marks)) if start <= step <= end]


NOTHING = Planted()


def store(job_ids: list[str], num_points: int, planted: Planted = NOTHING) -> None:
    """Give jobs of one attempt and without points a training loss at each of so many steps."""
    jobs = {"job_ids": job_ids}
    with db.transaction() as session:
        session.execute(text(POINTS), {**jobs, "num_points": num_points})
        for step, value in planted.spikes.items():
            session.execute(text(SPIKE), {**jobs, "step": step, "value": value})
        for step in planted.nans:
            session.execute(text(NAN), {**jobs, "step": step})
        session.execute(text(FIRST_LEVEL), jobs)
        for level in range(2, LEVELS + 1):
            session.execute(text(NEXT_LEVEL), {**jobs, "level": level})
        for statement in (JOBS, ATTEMPTS):
            session.execute(text(statement), {**jobs, "num_points": num_points})
    vacuum()


def vacuum() -> None:
    """What autovacuum does after a while: statistics and the map of pages that are visible to all."""
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE job, attempt, metric_point, metric_rollup"))


def check(job_id: str, other_id: str) -> None:
    """Assert that the rows of a job are those that the product writes: its points, one by one, for another job."""
    with db.transaction() as session:
        query = text("SELECT seq, step, value, nonfinite FROM metric_point WHERE job_id = :job_id ORDER BY step")
        rows = session.execute(query, {"job_id": job_id}).all()
        points = [Point(seq, step, {"loss": nonfinite or value}) for seq, step, value, nonfinite in rows]
        metrics.append(session, job_id=other_id, fence=1, points=points)
    assert rows
    assert _rollups(job_id) == _rollups(other_id)


def _rollups(job_id: str) -> list[Any]:
    with db.transaction() as session:
        query = select(*COLUMNS).where(MetricRollup.job_id == job_id)
        return list(session.execute(query.order_by(MetricRollup.level, MetricRollup.bucket)))
