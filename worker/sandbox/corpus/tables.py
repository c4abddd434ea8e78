"""Reads tables: the rows of a .csv or .tsv file as records, by the names in the first row. Standard library only."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from worker.sandbox.corpus.decoding import BOM, SKIPPED
from worker.sandbox.corpus.fields import BadLine, BadLines
from worker.sandbox.corpus.record_schema import RecordReader

DELIMITERS = {"csv": ",", "tsv": "\t"}
# Of spreadsheets in other countries and of databases, whatever the file's ending.
OTHER_DELIMITERS = (",", ";", "\t", "|", "^", "~", "\x1f", "\x01", ":", " ")
MAX_ROW_CHARACTERS = 16 << 20

_EXCEL_HINT = re.compile(r"\"?sep=(.)\"?\r?\n", re.IGNORECASE)


class UnknownColumns(BadLine):
    """The first row names no kind of record; `names` are those of its columns."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("columns", found=", ".join(names)[:200])
        self.names = names


class TableRows:
    """Reads the rows of one table into documents; the first one that is not empty names the columns."""

    def __init__(self, shape: RecordReader, bad_lines: BadLines) -> None:
        self._shape, self._bad_lines = shape, bad_lines
        self.names: list[str] = []

    def document(self, row: list[str]) -> str | None:
        """What is kept of a row; None of one that names columns, is empty, or is left out. Raises BadLine."""
        if not any(cell.strip() for cell in row):
            return None
        if not self.names:
            names = _names(row)
            if not self._shape.knows_columns(names):
                raise UnknownColumns(names)
            self.names = names
            return None
        if any(SKIPPED in cell for cell in row):
            self._bad_lines.skip_document()
            return None
        if _lower(row)[: len(self.names)] == self.names:  # the first row again, where files were joined
            return None
        return self._shape.document(_record(self.names, row))


def describe_columns(shape: RecordReader, header: BadLine, rows: Iterator[list[str]]) -> None:
    """Where the first row names no kind of record: describe its columns for people, by the next row."""
    if not isinstance(header, UnknownColumns):
        return
    row: list[str] = []
    try:
        with suppress(csv.Error, BadLine):
            row = next((row for row in rows if any(cell.strip() for cell in row)), [])
    finally:
        shape.name_columns(header.names, row[: len(header.names)])


class Rows:
    """Reads the rows of a text with separators into documents and remembers the bad ones."""

    def __init__(self, form: str, shape: RecordReader, bad_lines: BadLines) -> None:
        self._delimiter, self._shape, self._bad_lines = DELIMITERS[form], shape, bad_lines

    def documents(self, texts: Iterator[str]) -> Iterator[str]:
        """What is kept of each row. A first row that names no kind of record is the only bad line, and ends it."""
        csv.field_size_limit(MAX_ROW_CHARACTERS)
        lines = RowLines(texts)
        try:
            first = self._first_line(lines)
        except BadLine as bad:
            self._bad_lines.add(bad, lines.number)
            return
        self._delimiter = _delimiter(first, self._delimiter, self._shape)
        reader = csv.reader(chain([first], lines), delimiter=self._delimiter, strict=True)
        line = lines.number
        table = TableRows(self._shape, self._bad_lines)
        while True:
            try:
                document = table.document(next(reader))
                if document is not None:
                    yield document
            except StopIteration:
                return
            except csv.Error as error:
                self._bad_lines.add(BadLine("csv", why=str(error)), line)
            except BadLine as bad:
                self._bad_lines.add(bad, line)
                if not table.names:
                    describe_columns(self._shape, bad, reader)
                    return
            lines.begin_row()
            line = lines.number + 1

    def _first_line(self, lines: "RowLines") -> str:
        """The first line that is neither blank nor a hint for Excel, which sets the delimiter. Raises BadLine."""
        for line in lines:
            hint = _EXCEL_HINT.fullmatch(line)
            if hint:
                self._delimiter = hint[1]
            elif line.strip():
                return line
            lines.begin_row()
        return ""


class RowLines:
    """Whole lines with their ends, from pieces cut anywhere, without the byte-order marks of joined files.

    Raises BadLine where the lines of a row, since `begin_row`, have more characters than the limit; what is left of
    that line is skipped, so memory stays bounded. `number` is that of the last line, counted from 1.
    """

    def __init__(self, texts: Iterator[str]) -> None:
        self._lines = _lines(texts)
        self._num_characters = 0
        self.number = 0

    def begin_row(self) -> None:
        """The next line begins a row."""
        self._num_characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        if not self._num_characters:
            line = line.lstrip(BOM)
        self._num_characters += len(line)
        if self._num_characters > MAX_ROW_CHARACTERS:
            raise BadLine("row_too_long")
        return line


def _lines(texts: Iterator[str]) -> Iterator[str]:
    """Whole lines with their ends; of one longer than a row may be only the beginning, which is too long as well."""
    pending: list[str] = []
    num_pending = 0
    for text in texts:
        *lines, rest = text.split("\n")
        for line in lines:
            yield "".join([*pending, line, "\n"]) if pending else line + "\n"
            pending, num_pending = [], 0
        if rest and num_pending <= MAX_ROW_CHARACTERS:
            pending.append(rest)
            num_pending += len(rest)
    if pending:
        yield "".join(pending)


def _delimiter(first_row: str, usual: str, shape: RecordReader) -> str:
    """The separator with which the first row names a kind of record. If none does: the usual one if the first row has
    it, else the one that it has most often.
    """
    columns: dict[str, int] = {}
    for delimiter in (usual, *OTHER_DELIMITERS):
        with suppress(csv.Error):
            row = next(csv.reader([first_row], delimiter=delimiter), [])
            if shape.knows_columns(_lower(row)):
                return delimiter
            columns[delimiter] = len(row)
    if columns.get(usual, 1) > 1 or not columns:
        return usual
    return max(OTHER_DELIMITERS[:-2], key=lambda delimiter: columns.get(delimiter, 0))


def _lower(row: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in row]


def _names(row: list[str]) -> list[str]:
    names = _lower(row)
    while names and not names[-1]:
        names.pop()
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise BadLine("column_twice", name=twice[:80])
    return names


def _record(names: list[str], row: list[str]) -> dict[str, Any]:
    cells, rest = row[: len(names)], row[len(names) :]
    if len(cells) < len(names) or any(cell.strip() for cell in rest):
        raise BadLine("row_length", found=len(row), expected=len(names))
    return dict(zip(names, cells, strict=True))
