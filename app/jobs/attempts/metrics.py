"""Metric points and their rollups by powers of 4: written as points arrive, so that any zoom reads few rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, and_, bindparam, case, delete, false, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from app.core import db
from app.core.model_base import Base
from app.core.models import MetricPoint, MetricRollup

LEVELS = 10  # the widest bucket holds 4^10 steps, about a million
MAX_MARKS = 200  # non-finite points drawn individually; more of them add no information

Value = float | str  # a number, or the word nan, inf or -inf


@dataclass(frozen=True)
class Point:
    """One line of a journal: the values of several series at a step, and when it was written."""

    seq: int
    step: int
    values: dict[str, Value]
    at: datetime | None = None


@dataclass
class Curve:
    """A series as it is drawn: where `stride` is 1 the points themselves, else buckets of so many steps."""

    steps: list[int] = field(default_factory=list)
    values: list[Value | None] = field(default_factory=list)
    min: list[float | None] = field(default_factory=list)
    max: list[float | None] = field(default_factory=list)
    stride: int = 1
    seconds: list[float | None] = field(default_factory=list)  # of training before each place, where asked for

    def add(self, step: int, value: Value | None, low: float | None, high: float | None) -> None:
        """Append one place of the curve."""
        self.steps.append(step)
        self.values.append(value)
        self.min.append(low)
        self.max.append(high)

    def sort(self) -> None:
        """Put the places in the order of their steps."""
        places = sorted(zip(self.steps, self.values, self.min, self.max, strict=True), key=lambda place: place[0])
        for column, values in zip(
            (self.steps, self.values, self.min, self.max), zip(*places, strict=True), strict=True
        ):
            column[:] = values  # type: ignore[index]


# ---- writing --------------------------------------------------------------------------------------------------------


def append(session: Session, *, job_id: str, fence: int, points: Sequence[Point]) -> None:
    """Add new points and bring every rollup above them up to date, in two statements."""
    rows = [_row(job_id, fence, point, series, value) for point in points for series, value in point.values.items()]
    if not rows:
        return
    session.execute(_insert(MetricPoint, rows).on_conflict_do_nothing())
    _add_to_rollups(session, _rolled_up(job_id, rows))


def _insert(model: type[Base], rows: list[dict[str, Any]]) -> Insert:
    """The statement that inserts rows: an array for each column, a third of the time of one statement for each row."""
    columns = model.__table__.columns
    arrays = [
        func.unnest(bindparam(name, [row[name] for row in rows], ARRAY(columns[name].type)), type_=columns[name].type)
        for name in rows[0]
    ]
    return insert(model).from_select(list(rows[0]), select(*arrays))


def _row(job_id: str, fence: int, point: Point, series: str, value: Value) -> dict[str, Any]:
    word = value if isinstance(value, str) else None
    return {
        "job_id": job_id,
        "series": series,
        "step": point.step,
        "fence": fence,
        "seq": point.seq,
        "value": None if word else value,
        "nonfinite": word,
        "at": point.at,
    }


def _rolled_up(job_id: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The buckets of all levels, each level from those below it."""
    buckets: dict[tuple[str, int, int], dict[str, Any]] = {}

    def bucket(*key: Any) -> dict[str, Any]:
        if key not in buckets:
            buckets[key] = _empty_bucket(job_id, *key)
        return buckets[key]

    for row in rows:
        _count_in(bucket(row["series"], 1, row["step"] >> 2), row)
    for level in range(2, LEVELS + 1):
        for part in [each for each in buckets.values() if each["level"] == level - 1]:
            _merge(bucket(part["series"], level, part["bucket"] >> 2), part)
    return [buckets[key] for key in sorted(buckets)]  # one order everywhere, so that writers cannot deadlock


def _empty_bucket(job_id: str, series: str, level: int, bucket: int) -> dict[str, Any]:
    counts = {"count": 0, "num_nonfinite": 0, "sum": 0.0, "min": None, "max": None, "last": None, "last_step": -1}
    return {"job_id": job_id, "series": series, "level": level, "bucket": bucket, **counts}


def _count_in(bucket: dict[str, Any], row: dict[str, Any]) -> None:
    value = row["value"]
    if row["step"] >= bucket["last_step"]:
        bucket["last"], bucket["last_step"] = value, row["step"]
    if value is None:
        bucket["num_nonfinite"] += 1
        return
    bucket["count"] += 1
    bucket["sum"] += value
    bucket["min"] = value if bucket["min"] is None else min(bucket["min"], value)
    bucket["max"] = value if bucket["max"] is None else max(bucket["max"], value)


def _add_to_rollups(session: Session, buckets: list[dict[str, Any]]) -> None:
    new = _insert(MetricRollup, buckets)
    had, got = MetricRollup, new.excluded
    newer = got.last_step >= had.last_step
    merged = {
        "count": had.count + got.count,
        "num_nonfinite": had.num_nonfinite + got.num_nonfinite,
        "sum": had.sum + got.sum,
        "min": func.least(had.min, got.min),  # LEAST and GREATEST pass over nulls
        "max": func.greatest(had.max, got.max),
        "last": case((newer, got.last), else_=had.last),
        "last_step": func.greatest(had.last_step, got.last_step),
    }
    key = ["job_id", "series", "level", "bucket"]
    session.execute(new.on_conflict_do_update(index_elements=key, set_=merged))


def rewind(session: Session, *, job_id: str, from_step: int) -> None:
    """Archive the live points from a step on, which another attempt will write again, and take them out of rollups."""
    again = (MetricPoint.job_id == job_id, MetricPoint.step >= from_step, ~MetricPoint.archived)
    if session.execute(update(MetricPoint).where(*again).values(archived=True).returning(MetricPoint.step)).first():
        _rebuild(session, job_id, from_step)


def _rebuild(session: Session, job_id: str, from_step: int) -> None:
    """Recompute the buckets that contain steps from `from_step` on, each level from the complete buckets below it."""
    levels = range(1, LEVELS + 1)
    touched = or_(*(and_(MetricRollup.level == n, MetricRollup.bucket >= from_step >> 2 * n) for n in levels))
    session.execute(delete(MetricRollup).where(MetricRollup.job_id == job_id, touched))
    edges = [from_step >> 2 * n << 2 * n for n in range(LEVELS + 1)]  # where the bucket across the step begins
    parts = [_points(session, job_id, edges[1], from_step), *([] for _ in levels)]
    spans = [Span(n, edges[n + 1] >> 2 * n, edges[n] >> 2 * n) for n in levels[:-1]]  # at most three of each level
    below = select(MetricRollup.__table__).where(MetricRollup.job_id == job_id, or_(*(span.rows() for span in spans)))
    for row in session.execute(below).mappings():
        parts[row["level"]].append(dict(row))
    new: list[dict[str, Any]] = []
    buckets_below: dict[str, dict[str, Any]] = {}
    for level in levels:
        across: dict[str, dict[str, Any]] = {}
        for part in (*buckets_below.values(), *parts[level - 1]):
            name = part["series"]
            _merge(across.setdefault(name, _empty_bucket(job_id, name, level, from_step >> 2 * level)), part)
        buckets_below = across
        new += buckets_below.values()
    if new:
        session.execute(_insert(MetricRollup, new))


def _points(session: Session, job_id: str, begin: int, end: int) -> list[dict[str, Any]]:
    """The live points from a step to before another, as buckets of level 0."""
    buckets = []
    query = select(MetricPoint.series, MetricPoint.step, MetricPoint.value).where(
        MetricPoint.job_id == job_id, MetricPoint.step >= begin, MetricPoint.step < end, ~MetricPoint.archived
    )
    for series, step, value in session.execute(query):
        bucket = _empty_bucket(job_id, series, 0, step)
        _count_in(bucket, {"step": step, "value": value})
        buckets.append(bucket)
    return buckets


def _merge(bucket: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a smaller bucket to the one around it."""
    if part["last_step"] >= bucket["last_step"]:
        bucket["last"], bucket["last_step"] = part["last"], part["last_step"]
    for name in ("count", "num_nonfinite", "sum"):
        bucket[name] += part[name]
    for name, choose in (("min", min), ("max", max)):
        bucket[name] = choose((value for value in (bucket[name], part[name]) if value is not None), default=None)


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """What to read of a job's curves: steps from `start` to before `end`, in at most `max_points` places a series."""

    start: int
    end: int
    max_points: int = 1000


def last_step(session: Session, *, job_id: str) -> int:
    """The highest step with a live point; -1 if there is none."""
    top = select(func.max(MetricRollup.last_step)).where(MetricRollup.job_id == job_id, MetricRollup.level == LEVELS)
    last = session.scalar(top)
    return -1 if last is None else last


def curves(session: Session, *, job_id: str, window: Window, series: Sequence[str] | None = None) -> dict[str, Curve]:
    """Each series in a window, reduced to few points without losing an extreme value.

    A bucket at the edge of the window may include steps outside it.
    """
    levels = _levels(session, job_id, window, series)
    curves = {name: Curve(stride=4**level) for name, level in levels.items()}
    for level in sorted(set(levels.values())):
        names = [name for name in levels if levels[name] == level]
        if level == 0:
            _read_points(session, job_id, names, MetricPoint.step.between(window.start, window.end - 1), curves)
        else:
            spans = [Span(level, window.start >> 2 * level, (window.end - 1 >> 2 * level) + 1)]
            _read_rollups(session, job_id, names, spans, curves)
    return curves


def overviews(session: Session, *, job_ids: Sequence[str], series: str, max_points: int) -> dict[str, list[float]]:
    """The finite values of a series of each of these jobs that has it, reduced to few, in three statements."""
    roll, point = MetricRollup, MetricPoint
    sizes = select(roll.job_id, func.max(roll.last_step), func.sum(roll.count + roll.num_nonfinite)).where(
        roll.job_id.in_(job_ids), roll.series == series, roll.level == LEVELS
    )
    rows = session.execute(sizes.group_by(roll.job_id)).all()
    levels = {job_id: _level(count, Window(0, last + 1, max_points)) for job_id, last, count in rows}
    values: dict[str, list[float]] = {job_id: [] for job_id in levels}
    few = [job_id for job_id, level in levels.items() if level == 0]
    points = select(point.job_id, point.value).where(point.job_id.in_(few), point.series == series, ~point.archived)
    buckets = select(roll.job_id, roll.sum / roll.count).where(
        tuple_(roll.job_id, roll.level).in_([place for place in levels.items() if place[1]]),
        *(roll.series == series, roll.count > 0),
    )
    for query in (points.order_by(point.job_id, point.step), buckets.order_by(roll.job_id, roll.bucket)):
        for job_id, value in session.execute(query):
            if value is not None:
                values[job_id].append(value)
    return values


def add_seconds(session: Session, *, job_id: str, curves: Mapping[str, Curve]) -> None:
    """Give curves the seconds of training before each of their steps, without the pauses between attempts.

    A step has None where its time is not known, as in jobs of earlier versions.
    """
    steps = sorted({step for curve in curves.values() for step in curve.steps})
    db.plan_each_time(session)
    timed = _timed_losses(job_id)
    first = session.scalar(select(func.min(MetricPoint.step)).where(*timed)) or 0
    totals = {step: 0.0 for step in steps if step <= first}
    total, before = _time_before(session, job_id, next((step for step in steps if step not in totals), 0))
    query = select(MetricPoint.step, MetricPoint.fence, MetricPoint.at).where(*timed, MetricPoint.step.in_(steps))
    for point in session.execute(query.order_by(MetricPoint.step)):
        if before is not None and before.fence == point.fence:
            total += (point.at - before.at).total_seconds()
        before, totals[point.step] = point, total
    for curve in curves.values():
        curve.seconds = [totals.get(step) for step in curve.steps]


def _timed_losses(job_id: str) -> tuple[ColumnElement[bool], ...]:
    """The live points of the training loss, of which there is one for each step, where their time is known."""
    of_series = (MetricPoint.job_id == job_id, MetricPoint.series == "loss", ~MetricPoint.archived)
    return *of_series, MetricPoint.at.is_not(None)


def _time_before(session: Session, job_id: str, step: int) -> tuple[float, Any]:
    """The seconds of training up to the last point of the loss before a step, and that point (None: there is none)."""
    earlier = (*_timed_losses(job_id), MetricPoint.step < step)
    span = func.extract("epoch", func.max(MetricPoint.at) - func.min(MetricPoint.at))
    spans = select(span).where(*earlier).group_by(MetricPoint.fence)
    last = select(MetricPoint.step, MetricPoint.fence, MetricPoint.at).where(*earlier)
    point = session.execute(last.order_by(MetricPoint.step.desc()).limit(1)).first()
    return float(sum(session.scalars(spans))), point


def extremes(session: Session, *, job_ids: Sequence[str]) -> dict[str, dict[str, tuple[float, float]]]:
    """The least and the greatest value of each series of jobs, by the job's ID and the name of the series."""
    query = select(MetricRollup.job_id, MetricRollup.series, func.min(MetricRollup.min), func.max(MetricRollup.max))
    query = query.where(MetricRollup.job_id.in_(job_ids), MetricRollup.level == LEVELS)
    ranges: dict[str, dict[str, tuple[float, float]]] = {job_id: {} for job_id in job_ids}
    for job_id, series, low, high in session.execute(query.group_by(MetricRollup.job_id, MetricRollup.series)):
        if low is not None and high is not None:
            ranges[job_id][series] = (low, high)
    return ranges


def first_steps(session: Session, *, values: Sequence[tuple[str, str, float]]) -> dict[tuple[str, str], int]:
    """The first step at which a series has a value, by the job and the name of the series, for each of these values."""
    point = MetricPoint
    query = select(point.job_id, point.series, func.min(point.step)).where(
        tuple_(point.job_id, point.series, point.value).in_(values), ~point.archived
    )
    rows = session.execute(query.group_by(point.job_id, point.series))
    return {(job_id, series): step for job_id, series, step in rows}


def curves_until(session: Session, *, job_id: str, until: tuple[int, int], max_points: int) -> dict[str, Curve]:
    """All curves as they were when a journal line (fence, seq) had been recorded, without any later line.

    Every line of a step before the newest one is included, so complete buckets are used up to it, smaller and smaller
    ones toward the end, and then the last few points.
    """
    within = tuple_(MetricPoint.fence, MetricPoint.seq) <= until
    newest = select(MetricPoint.step).where(MetricPoint.job_id == job_id, ~MetricPoint.archived, within)
    newest_step = session.scalar(newest.order_by(MetricPoint.fence.desc(), MetricPoint.seq.desc()).limit(1))
    if newest_step is None:
        return {}
    levels = _levels(session, job_id, Window(0, newest_step + 1, max_points), None)
    curves = {name: Curve(stride=4**level) for name, level in levels.items()}
    for level in sorted(set(levels.values())):
        names = [name for name in levels if levels[name] == level]
        parts = range(level, 0, -1)
        edges = [0, *(newest_step >> 2 * part << 2 * part for part in parts)]
        spans = [
            Span(part, begin >> 2 * part, end >> 2 * part)
            for part, (begin, end) in zip(parts, pairwise(edges), strict=True)
        ]
        _read_rollups(session, job_id, names, spans, curves)
        _read_points(session, job_id, names, and_(MetricPoint.step >= edges[-1], within), curves)
    return {name: curve for name, curve in curves.items() if curve.steps}


@dataclass(frozen=True)
class Span:
    """Buckets of one level, from `begin` to before `end`."""

    level: int
    begin: int
    end: int

    def rows(self) -> ColumnElement[bool]:
        """The rollups of the span."""
        bucket = MetricRollup.bucket
        return and_(MetricRollup.level == self.level, bucket >= self.begin, bucket < self.end)


def _levels(session: Session, job_id: str, window: Window, series: Sequence[str] | None) -> dict[str, int]:
    """For each series the finest level that has at most `max_points` places in the window."""
    level = next((n for n in range(1, LEVELS) if (window.end - window.start) >> 2 * n <= 256), LEVELS)
    span = Span(level, window.start >> 2 * level, (window.end - 1 >> 2 * level) + 1)
    places = func.sum(MetricRollup.count + MetricRollup.num_nonfinite)
    query = select(MetricRollup.series, places).where(MetricRollup.job_id == job_id, span.rows())
    if series is not None:
        query = query.where(MetricRollup.series.in_(series))
    rows = session.execute(query.group_by(MetricRollup.series).order_by(MetricRollup.series)).all()
    return {name: _level(count, window) for name, count in rows}


def _level(num_points: int, window: Window) -> int:
    if num_points <= window.max_points:
        return 0
    steps = window.end - window.start
    return next((n for n in range(1, LEVELS) if steps >> 2 * n < window.max_points), LEVELS)


def _read_points(
    session: Session, job_id: str, names: list[str], within: ColumnElement[bool], curves: dict[str, Curve]
) -> None:
    query = select(MetricPoint.series, MetricPoint.step, MetricPoint.value, MetricPoint.nonfinite).where(
        MetricPoint.job_id == job_id, MetricPoint.series.in_(names), ~MetricPoint.archived, within
    )
    for name, step, value, word in session.execute(query.order_by(MetricPoint.series, MetricPoint.step)):
        curves[name].add(step, word or value, value, value)


_ROLLUP_COLUMNS = (  # not whole rows, which take several times as long
    *(MetricRollup.series, MetricRollup.level, MetricRollup.bucket, MetricRollup.count, MetricRollup.num_nonfinite),
    *(MetricRollup.sum, MetricRollup.min, MetricRollup.max, MetricRollup.last_step),
)


def _read_rollups(session: Session, job_id: str, names: list[str], spans: list[Span], curves: dict[str, Curve]) -> None:
    marked: list[ColumnElement[bool]] = []
    query = select(*_ROLLUP_COLUMNS).where(
        MetricRollup.job_id == job_id, MetricRollup.series.in_(names), or_(false(), *(span.rows() for span in spans))
    )
    rows = session.execute(query.order_by(MetricRollup.series, MetricRollup.last_step))
    for name, level, bucket, count, num_nonfinite, total, low, high, last_step in rows:
        if count:
            curves[name].add(last_step, total / count, low, high)
        if num_nonfinite and len(marked) < MAX_MARKS:
            begin, end = bucket << 2 * level, bucket + 1 << 2 * level
            marked.append(and_(MetricPoint.series == name, MetricPoint.step.between(begin, end - 1)))
    if marked:
        _read_marks(session, job_id, or_(*marked), curves)


def _read_marks(session: Session, job_id: str, within: ColumnElement[bool], curves: dict[str, Curve]) -> None:
    """Non-finite points stand among the buckets with their own step and word, so that none is averaged away."""
    query = select(MetricPoint.series, MetricPoint.step, MetricPoint.nonfinite).where(
        MetricPoint.job_id == job_id, ~MetricPoint.archived, MetricPoint.nonfinite.is_not(None), within
    )
    rows = session.execute(query.order_by(MetricPoint.series, MetricPoint.step).limit(MAX_MARKS)).all()
    for name, step, word in rows:
        curves[name].add(step, word, None, None)
    for name in {row.series for row in rows}:
        curves[name].sort()


def points_after(session: Session, *, job_id: str, after: tuple[int, int], until: tuple[int, int]) -> list[MetricPoint]:
    """The live points of the journal lines after `after` up to `until`, oldest first."""
    place = tuple_(MetricPoint.fence, MetricPoint.seq)
    query = select(MetricPoint).where(
        MetricPoint.job_id == job_id, ~MetricPoint.archived, place > after, place <= until
    )
    return list(session.scalars(query.order_by(MetricPoint.fence, MetricPoint.seq)))
