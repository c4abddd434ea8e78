"""When silence is a hang, and when it is work."""

import pytest

from trainer.events import PhaseEvent, PointsEvent
from worker.supervisor.watchdog import Watchdog


def fed(num_steps: int, seconds: float, *, phase: str = "train") -> Watchdog:
    """A watchdog after `num_steps` steps; its clock is at the last one."""
    watchdog = Watchdog(step_seconds=60, first_step_seconds=600, now=0.0)
    watchdog.observe(PhaseEvent(seq=1, at=0.0, phase=phase, done=0, total=100), 0.0)  # type: ignore[arg-type]
    for step in range(1, num_steps + 1):
        watchdog.observe(PointsEvent(seq=step + 1, at=step * seconds, step=step, values={"loss": 1.0}), step * seconds)
    return watchdog


@pytest.mark.parametrize(
    ("watchdog", "limit"),
    [
        (fed(0, 1.0), 600),
        (fed(4, 1.0), 600),
        (fed(10, 1.0), 60),
        (fed(10, 30.0), 150),
        (fed(0, 1.0, phase="load"), 600),
        (fed(0, 1.0, phase="tokenise"), 3600),
    ],
    ids=["no step yet", "too few steps", "quick steps", "slow steps", "loading", "tokenizing"],
)
def test_the_time_limit_depends_on_the_phase(watchdog: Watchdog, limit: float) -> None:
    assert watchdog.limit() == limit
    assert not watchdog.is_hung(watchdog.last_event_at + limit)
    assert watchdog.is_hung(watchdog.last_event_at + limit + 0.01)


def test_an_evaluation_does_not_count_as_a_slow_step() -> None:
    watchdog = fed(10, 1.0)
    watchdog.observe(PhaseEvent(seq=20, at=10.0, phase="evaluate", done=0, total=1), 10.0)
    assert watchdog.limit() == 600
    watchdog.observe(PhaseEvent(seq=21, at=300.0, phase="train", done=10, total=100), 300.0)
    watchdog.observe(PointsEvent(seq=22, at=301.0, step=11, values={"loss": 1.0}), 301.0)
    assert max(watchdog.seconds) == 1.0
    assert watchdog.step == 11
