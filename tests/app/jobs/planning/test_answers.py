"""How a plan's values are written."""

import pytest

from app.core.i18n import use_locale
from app.jobs.planning.answers import interval, localize
from trainer.formats.messages import Message
from trainer.planning.estimates import Estimate

WHY = Message(code="why", template="Because.")


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("needed_bytes", 3 * 2**30, "3.0 GiB"),
        ("available_seconds", 0.25, "0.25 s"),
        ("available_seconds", 7200, "2 hours"),
        ("token_flops", 42.9e9, "42.9 GFLOP"),
        ("work_flops", 3e24, "3 YFLOP"),
        ("rate_flops", 12.0, "12 FLOP"),
        ("num_tokens", 1234567, "1,234,567"),
        ("changes", "zero_stage=2", "zero_stage=2"),
        ("available_bytes", None, "–"),
    ],
)
def test_values_are_formatted_by_the_suffix_of_their_names(name: str, value: object, written: str) -> None:
    assert localize(Message(code="is", template=f"It is {{{name}}}.", values={name: value})) == f"It is {written}."


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("seconds", "2 minutes (60 seconds to 4 minutes)"),
        ("kWh", "120 kWh (60 kWh to 240 kWh)"),
        ("price", "120 (60 to 240)"),
    ],
)
def test_a_figure_is_written_with_its_interval(unit: str, text: str) -> None:
    assert interval(Estimate(low=60, value=120, high=240, unit=unit, reason=WHY)) == text


def test_an_interval_that_rounds_to_nothing_is_left_out() -> None:
    assert interval(Estimate(low=1e9, value=1e9, high=1.0001e9, unit="flops", reason=WHY)) == "1 GFLOP"


def test_intervals_are_translated() -> None:
    with use_locale("zh-CN"):
        assert interval(Estimate(low=1, value=2, high=3, unit="seconds", reason=WHY)) == "2 秒（1 秒 至 3 秒）"
