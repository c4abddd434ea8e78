"""The Markdown tables of `make faults`, `make attack` and `make soak`: one line for each test with the mark `row`."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

RESULT = "result"  # the user property of a test that holds a sentence about what happened
MAX_ERROR_LENGTH = 300

Report = Callable[..., None]


def reporter(item: pytest.Item) -> Report:
    """What a test calls with a value of its row, and with the column if that is not the result."""
    return lambda value, column=RESULT: item.user_properties.append((column, value))


class RowTable:
    """The lines of a table. It is written again after each test, so that an interrupted run leaves what it measured.

    `columns` name user properties of the tests; their values stand between the result and the seconds.
    """

    def __init__(self, title: str, command: str, what: str, introduction: str, columns: Sequence[str] = ()) -> None:
        self._title, self._command, self._what, self._introduction = title, command, what, introduction
        self._columns = columns
        self._lines: list[tuple[str, bool, str]] = []  # the row's number, whether it passed, its text
        self._begin = time.monotonic()
        variable = os.environ.get(f"{command.upper()}_TABLE")
        self._path = Path(variable) if variable else None

    def add(self, item: pytest.Item, call: pytest.CallInfo[Any], outcome: pytest.TestReport) -> None:
        """Add the result of a test, if it has the mark `row` and its call has ended or it has failed."""
        marker = item.get_closest_marker("row")
        if marker is None or not (outcome.when == "call" or outcome.failed):
            return
        properties = item.user_properties
        result = "; ".join(str(value) for name, value in properties if name == RESULT)
        if not outcome.passed:
            result = " ".join(str(call.excinfo and call.excinfo.value).split())[:MAX_ERROR_LENGTH]
        values = dict(properties)
        cells = [*marker.args, result, *(values.get(column, "") for column in self._columns)]
        mark = "ok" if outcome.passed else "**FAILED**"
        texts = [_cell(cell) for cell in (*cells, f"{outcome.duration:.1f}", mark)]
        self._lines.append((marker.args[0], outcome.passed, f"| {' | '.join(texts)} |"))
        if self._path is not None:
            self._path.write_text(self.text())

    def text(self) -> str:
        """The table as a Markdown page."""
        passed = sum(is_ok for _row, is_ok, _text in self._lines)
        root = Path(__file__).parent
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=root, text=True).strip()
        minutes = (time.monotonic() - self._begin) / 60
        count = f"{passed} of {len(self._lines)} {self._what}, {minutes:.1f} minutes, {os.cpu_count()} cores, "
        place = f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, commit {commit}. "
        lines = [f"# {self._title}", "", f"{count}{place}Made by `make {self._command}`.", "", self._introduction, ""]
        return "\n".join([*lines, *self._head(), *self._sorted()]) + "\n"

    def _head(self) -> Iterator[str]:
        names = ("row", self._command.removesuffix("s"), "result", *self._columns, "seconds", "")
        yield f"| {' | '.join(names)} |"
        yield f"| --- | --- | --- {'| ---: ' * (len(self._columns) + 1)}| --- |"

    def _sorted(self) -> list[str]:
        def order(line: tuple[str, bool, str]) -> tuple[str, int]:
            letters, number = re.match(r"(\D*)(\d*)", line[0]).groups()  # type: ignore[union-attr]
            return letters, int(number or 0)

        return [text for _row, _is_ok, text in sorted(self._lines, key=order)]


def _cell(value: object) -> str:
    return str(value).replace("|", "/").replace("\n", " ")
