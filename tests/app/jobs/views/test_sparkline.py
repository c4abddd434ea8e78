"""Small curves in lists."""

from app.jobs.views import sparkline


def test_a_falling_loss_falls_in_the_picture() -> None:
    assert sparkline.points([3.0, 2.0, 1.0]) == "2.0,2.0 48.0,12.0 94.0,22.0"


def test_no_points_or_a_single_one_draw_nothing() -> None:
    assert sparkline.points([]) == sparkline.points([1.0]) == ""


def test_a_flat_curve_is_a_line() -> None:
    assert sparkline.points([1.0, 1.0]) == "2.0,22.0 94.0,22.0"
