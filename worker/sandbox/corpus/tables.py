"""Reads tables: the rows of a .csv or .tsv file as records, by the names in the first row. Standard library only."""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from worker.sandbox.corpus.decoding import BOM
from worker.sandbox.corpus.fields import BadLine, BadLines
from worker.sandbox.corpus.record_schema import RecordReader, detect_kind

DELIMITERS = {"csv": ",", "tsv": "\t"}
OTHER_DELIMITERS = (",", ";", "\t", "|")  # of spreadsheets in other countries, whatever the file's ending
MAX_CELL = 16 << 20

_EXCEL_HINT = re.compile(r"sep=(.)\r?\n")


class Rows:
    """Reads the rows of a table into documents and remembers the bad ones."""

    def __init__(self, form: str, shape: RecordReader, bad_lines: BadLines) -> None:
        self._delimiter, self._shape, self._bad_lines = DELIMITERS[form], shape, bad_lines
        self._row_begins = True

    def documents(self, texts: Iterator[str]) -> Iterator[str]:
        """What is kept of each row. A first row that names no kind of record is the only bad line, and ends it."""
        csv.field_size_limit(MAX_CELL)
        lines = self._lines(texts)
        first, num_lines_before = "", 0
        for first in lines:
            hint = _EXCEL_HINT.fullmatch(first)
            if hint:
                self._delimiter = hint[1]
            if first.strip() and not hint:
                break
            num_lines_before += 1
            self._row_begins = True
        self._delimiter = _delimiter(first, self._delimiter)
        reader = csv.reader(chain([first], lines), delimiter=self._delimiter, strict=True)
        names: list[str] = []
        while True:
            line = num_lines_before + reader.line_num + 1
            self._row_begins = True
            try:
                row = next(reader)
                if not any(cell.strip() for cell in row):
                    continue
                if not names:
                    names = _names(row)
                elif _lower(row)[: len(names)] != names:  # the first row again, where files were joined
                    yield self._shape.document(_record(names, row))
            except StopIteration:
                return
            except csv.Error as error:
                self._bad_lines.add(BadLine("csv", why=str(error)), line)
            except BadLine as bad:
                self._bad_lines.add(bad, line)
                if not names:
                    return

    def _lines(self, texts: Iterator[str]) -> Iterator[str]:
        """Whole lines with their ends, from pieces cut anywhere, without the byte-order marks of joined files."""
        pending = ""
        for text in texts:
            *lines, pending = (pending + text).split("\n")
            for line in lines:
                yield self._without_mark(line + "\n")
        if pending:
            yield self._without_mark(pending)

    def _without_mark(self, line: str) -> str:
        line = line.lstrip(BOM) if self._row_begins else line
        self._row_begins = False
        return line


def _delimiter(first_row: str, usual: str) -> str:
    """The separator with which the first row names a kind of record; the usual one if none does."""
    for delimiter in (usual, *OTHER_DELIMITERS):
        row = next(csv.reader([first_row], delimiter=delimiter), [])
        if detect_kind(dict.fromkeys(_lower(row))):
            return delimiter
    return usual


def _lower(row: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in row]


def _names(row: list[str]) -> list[str]:
    names = _lower(row)
    while names and not names[-1]:
        names.pop()
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    if detect_kind(dict.fromkeys(names)) is None:
        raise BadLine("columns", found=", ".join(names)[:200])
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise BadLine("column_twice", name=twice[:80])
    return names


def _record(names: list[str], row: list[str]) -> dict[str, Any]:
    cells, rest = row[: len(names)], row[len(names) :]
    if len(cells) < len(names) or any(cell.strip() for cell in rest):
        raise BadLine("row_length", found=len(row), expected=len(names))
    return dict(zip(names, cells, strict=True))
