"""Integer division and multiples, rounded up."""

from hypothesis import given
from hypothesis import strategies as st

from trainer.rounding import ceil_div, round_up_to_multiple


@given(value=st.integers(0, 10**18), by=st.integers(1, 10**9))
def test_ceil_div_is_the_smallest_sufficient_quotient(value: int, by: int) -> None:
    quotient = ceil_div(value, by)
    assert (quotient - 1) * by < value <= quotient * by


@given(value=st.integers(0, 10**18), of=st.integers(1, 10**9))
def test_round_up_to_multiple_is_the_next_multiple(value: int, of: int) -> None:
    multiple = round_up_to_multiple(value, of)
    assert multiple % of == 0
    assert value <= multiple < value + of
