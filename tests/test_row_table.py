"""The tables of `make faults`, `make attack` and `make soak`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.row_table import RowTable


def run(table: RowTable, row: str, error: str = "", **properties: str) -> None:
    """Add the result of a test to a table."""
    marker = pytest.mark.row(row, f"what {row} does").mark
    item: Any = SimpleNamespace(get_closest_marker=lambda name: marker, user_properties=list(properties.items()))
    call: Any = SimpleNamespace(excinfo=SimpleNamespace(value=AssertionError(error)) if error else None)
    outcome: Any = SimpleNamespace(when="call", failed=bool(error), passed=not error, duration=1.26)
    table.add(item, call, outcome)


def test_a_table_is_written_after_each_row_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIALS_TABLE", str(tmp_path / "trials.md"))
    table = RowTable("Trials", "trials", "trials passed", "What is tried.", ("ms",))
    run(table, "F10", ms="7", result="ten")
    run(table, "F9-2", error="a | b\n c")
    text = (tmp_path / "trials.md").read_text()
    assert "1 of 2 trials passed" in text
    assert "Made by `make trials`." in text
    assert text.splitlines()[-4:] == [
        "| row | trial | result | ms | seconds |  |",
        "| --- | --- | --- | ---: | ---: | --- |",
        "| F9-2 | what F9-2 does | a / b c |  | 1.3 | **FAILED** |",
        "| F10 | what F10 does | ten | 7 | 1.3 | ok |",
    ]
