"""Points and rollups: equal to a direct computation for any journal, any zoom, any rewind."""

import math
from collections import defaultdict
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text

from app.core import db
from app.core.models import MetricPoint, MetricRollup
from app.jobs.attempts import metrics
from app.jobs.attempts.metrics import LEVELS, Point, Window
from tests.app.jobs import factories
from tests.users import Person

_fences = count(1)
value = st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from(["nan", "inf", "-inf"])
lengths = st.integers(1, 70)


@pytest.fixture(scope="module")
def job_id(alice_user: Person) -> str:
    return factories.submitted(alice_user, factories.corpus(alice_user))


def points(values: list[float | str], first_step: int = 0, first_seq: int = 1) -> list[Point]:
    return [Point(first_seq + n, first_step + n, {"loss": value}) for n, value in enumerate(values)]


def forget(job_id: str) -> None:
    with db.transaction() as session:
        session.execute(delete(MetricPoint).where(MetricPoint.job_id == job_id))
        session.execute(delete(MetricRollup).where(MetricRollup.job_id == job_id))


def direct(live: dict[int, float | str]) -> dict[tuple[int, int], tuple[object, ...]]:
    """Rollups as a reader of the definition would compute them."""
    inside: dict[tuple[int, int], dict[int, float | str]] = defaultdict(dict)
    for step, value in live.items():
        for level in range(1, LEVELS + 1):
            inside[level, step // 4**level][step] = value
    rolled = {}
    for key, values in inside.items():
        finite = [v for _, v in sorted(values.items()) if not isinstance(v, str)]
        last_step = max(values)
        last = values[last_step]
        rolled[key] = (
            len(finite),
            len(values) - len(finite),
            min(finite, default=None),
            max(finite, default=None),
            None if isinstance(last, str) else last,
            last_step,
        )
    return rolled


def stored(job_id: str, series: str = "loss") -> dict[tuple[int, int], tuple[object, ...]]:
    with db.transaction() as session:
        of_series = (MetricRollup.job_id == job_id, MetricRollup.series == series)
        rows = session.scalars(select(MetricRollup).where(*of_series)).all()
    return {(r.level, r.bucket): (r.count, r.num_nonfinite, r.min, r.max, r.last, r.last_step) for r in rows}


def sums_agree(job_id: str, live: dict[int, float | str], series: str = "loss") -> bool:
    with db.transaction() as session:
        of_series = (MetricRollup.job_id == job_id, MetricRollup.series == series)
        rows = session.scalars(select(MetricRollup).where(*of_series)).all()
    for row in rows:
        finite = [v for s, v in live.items() if s // 4**row.level == row.bucket and not isinstance(v, str)]
        if not math.isclose(row.sum, math.fsum(finite), rel_tol=1e-9, abs_tol=1e-6):
            return False
    return True


@given(st.lists(value, min_size=1, max_size=90), st.lists(st.integers(1, 30), min_size=1, max_size=4), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rollups_equal_a_direct_computation_after_any_inserts_and_rewinds(
    job_id: str, values: list[float | str], sizes: list[int], data: st.DataObject
) -> None:
    forget(job_id)
    fence, live = next(_fences), {}
    rest, sizes_left = points(values), list(sizes)
    while rest:
        size = sizes_left.pop() if sizes_left else len(rest)
        with db.transaction() as session:
            metrics.append(session, job_id=job_id, fence=fence, points=rest[:size])
        rest = rest[size:]
    live.update(enumerate(values))
    from_step = data.draw(st.integers(0, len(values) + 3), label="from_step")
    again = data.draw(st.lists(value, max_size=20), label="again")
    with db.transaction() as session:
        metrics.rewind(session, job_id=job_id, from_step=from_step)
        metrics.append(session, job_id=job_id, fence=next(_fences), points=points(again, min(from_step, len(values))))
    live = {step: value for step, value in live.items() if step < from_step}
    live.update({min(from_step, len(values)) + n: value for n, value in enumerate(again)})
    assert stored(job_id) == direct(live)
    assert sums_agree(job_id, live)
    with db.transaction() as session:
        curve = metrics.curves(session, job_id=job_id, window=Window(0, 200)).get("loss", metrics.Curve())
        assert dict(zip(curve.steps, curve.values, strict=True)) == live
        assert curve.steps == sorted(live)


@given(st.data(), st.integers(0, 70_000), st.integers(0, 70_000))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rollups_equal_a_direct_computation_after_a_rewind_in_a_sparse_run(
    job_id: str, data: st.DataObject, last: int, from_step: int
) -> None:
    forget(job_id)
    near = st.integers(max(0, from_step - 70), from_step + 5)
    live = data.draw(st.dictionaries(st.integers(0, last) | near, value, max_size=60), label="live")
    other = data.draw(st.dictionaries(near, value, max_size=5), label="other")
    lines = [Point(step + 1, step, {"loss": value}) for step, value in sorted(live.items())]
    lines += [Point(step + 1, step, {"grad_norm": value}) for step, value in sorted(other.items())]
    with db.transaction() as session:
        metrics.append(session, job_id=job_id, fence=1, points=[*lines, Point(80_001, 80_000, {"loss": 1.0})])
        metrics.rewind(session, job_id=job_id, from_step=from_step)
    for series, values in (("loss", live), ("grad_norm", other)):
        left = {step: value for step, value in values.items() if step < from_step}
        assert stored(job_id, series) == direct(left)
        assert sums_agree(job_id, left, series)


def test_rewinding_the_end_of_a_run_needs_only_its_last_points(job_id: str) -> None:
    forget(job_id)
    live: dict[int, float | str] = {step: step / 7 for step in range(1_000)}
    with db.transaction() as session:
        metrics.append(session, job_id=job_id, fence=1, points=points(list(live.values())))
        gone = (MetricPoint.job_id == job_id, MetricPoint.step < 985 - 985 % 4)
        session.execute(delete(MetricPoint).where(*gone))
        metrics.rewind(session, job_id=job_id, from_step=985)
    assert stored(job_id) == direct({step: value for step, value in live.items() if step < 985})


@pytest.fixture(scope="module")
def long_run(alice_user: Person) -> str:
    """20,000 steps with single-step spikes and a few points that are no numbers."""
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    values: list[float | str] = [5.0 - n / 10_000 for n in range(20_000)]
    for step in SPIKES:
        values[step] = 1000.0 + step
    for step in WORDS:
        values[step] = "nan"
    with db.transaction() as session:
        for begin in range(0, 20_000, 1_000):
            batch = points(values[begin : begin + 1_000], begin, begin + 1)
            metrics.append(session, job_id=job_id, fence=1, points=batch)
    return job_id


SPIKES = (7, 300, 4_095, 4_096, 12_345, 19_999)
WORDS = (5, 9_000, 9_001)


def test_a_long_curve_reads_few_rows_and_keeps_every_spike_and_mark(long_run: str) -> None:
    with db.transaction() as session:
        curve = metrics.curves(session, job_id=long_run, window=Window(0, 20_000, 1_000))["loss"]
    assert curve.stride == 64
    assert len(curve.steps) < 400
    assert [high for high in curve.max if high is not None and high > 100] == [1000.0 + step for step in SPIKES]
    assert [step for step, v in zip(curve.steps, curve.values, strict=True) if v == "nan"] == list(WORDS)
    assert curve.steps == sorted(curve.steps)


def test_a_zoom_has_the_finest_resolution_of_its_window(long_run: str) -> None:
    with db.transaction() as session:
        near = metrics.curves(session, job_id=long_run, window=Window(12_300, 12_400))["loss"]
        middle = metrics.curves(session, job_id=long_run, window=Window(8_000, 14_000))["loss"]
    assert (near.stride, near.steps[0], near.steps[-1], near.max[45]) == (1, 12_300, 12_399, 13_345.0)
    assert middle.stride == 16
    assert 13_345.0 in middle.max
    assert middle.values.count("nan") == 2


@pytest.mark.parametrize("line", [1, 2, 999, 4_096, 4_097, 12_345, 19_999, 20_000])
def test_the_curve_up_to_a_cursor_has_each_earlier_point_once(long_run: str, line: int) -> None:
    with db.transaction() as session:
        curve = metrics.curves_until(session, job_id=long_run, until=(1, line), max_points=100)["loss"]
        assert curve.steps[-1] == line - 1
        assert len(curve.steps) <= 130
        seen = [high for high in curve.max if high is not None and high > 100]
        assert seen == [1000.0 + step for step in SPIKES if step < line]


def test_a_sparse_series_keeps_every_point_next_to_a_dense_one(alice_user: Person) -> None:
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    dense = [Point(n + 1, n, {"loss": 1.0} | ({"eval_loss": float(n)} if n % 500 == 0 else {})) for n in range(3_000)]
    with db.transaction() as session:
        metrics.append(session, job_id=job_id, fence=1, points=dense)
        curves = metrics.curves(session, job_id=job_id, window=Window(0, 3_000, 200))
        only = metrics.curves(session, job_id=job_id, window=Window(0, 3_000, 200), series=["eval_loss", "none"])
    assert curves["loss"].stride == 16
    assert curves["eval_loss"].steps == [0, 500, 1000, 1500, 2000, 2500]
    assert list(only) == ["eval_loss"]


def test_the_seconds_of_steps_are_never_looked_up_by_a_plan_for_any_job(long_run: str) -> None:
    window = Window(0, 1000, 100)
    with db.transaction() as session:
        session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))  # as PostgreSQL may with many jobs
        for _number in range(15):
            curves = metrics.curves(session, job_id=long_run, window=window, series=["loss"])
            metrics.add_seconds(session, job_id=long_run, curves=curves)
        plans = "SELECT max(generic_plans), max(custom_plans) FROM pg_prepared_statements WHERE statement ~ 'step IN'"
        num_generic, num_custom = session.execute(text(plans)).one()
    assert num_generic == 0 < num_custom
