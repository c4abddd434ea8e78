"""Ids of rows sort in the order they were drawn in."""

import time

import pytest

from app.core import model_base
from app.core.model_base import new_id


def test_ids_of_one_millisecond_sort_in_the_order_they_were_drawn_in(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    ids = [new_id() for _number in range(1000)]
    assert ids == sorted(set(ids))


def test_ids_sort_by_creation_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    now = time.time() - 60
    monkeypatch.setattr(time, "time", lambda: now)
    assert first < new_id() < new_id()


def test_an_id_bears_the_milliseconds_it_was_drawn_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_base, "_last_number", 0)  # restored, as later ids follow the last one
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    number = 0
    for digit in new_id():
        number = number * 32 + digits.index(digit)
    assert number >> 32 == int(later * 1000)
