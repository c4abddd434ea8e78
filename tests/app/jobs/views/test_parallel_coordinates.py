"""The plot of a hyperparameter search: the ticks of an axis do not touch each other."""

from itertools import pairwise

from app.jobs.views.parallel_coordinates import TICK_DISTANCE, plot


def test_the_ticks_of_an_axis_leave_room_for_each_other() -> None:
    losses = [6.121, 6.127, 6.18, 6.238, 6.611, 6.982, 7.077, 7.354, 7.504, 7.557, 7.608, 7.624]
    jobs = [(f"job{number}", f"job {number}", loss) for number, loss in enumerate(losses)]
    drawn = plot(jobs, [("Rate", ["0.01"] * 12)], "Loss")
    assert drawn is not None
    rate, loss = drawn.axes
    assert [text for _y, text in rate.ticks] == ["0.01"]
    assert (loss.ticks[0][1], loss.ticks[-1][1]) == ("7.624", "6.121")
    assert len(loss.ticks) >= 4
    assert all(abs(low - high) >= TICK_DISTANCE for (high, _a), (low, _b) in pairwise(loss.ticks))
