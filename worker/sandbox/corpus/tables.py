"""Reads tables: the rows of a .csv or .tsv file as records, by the names in the first row. Standard library only."""

import csv
from collections.abc import Iterator
from typing import Any

from worker.sandbox.corpus.record_schema import BadLine, RecordReader, detect_kind

DELIMITERS = {"csv": ",", "tsv": "\t"}
MAX_CELL = 16 << 20


class Rows:
    """Reads the rows of a table into documents and remembers the bad ones."""

    def __init__(self, form: str, shape: RecordReader, keep: int) -> None:
        self._delimiter, self._shape, self._keep = DELIMITERS[form], shape, keep
        self.problems: list[dict[str, Any]] = []
        self.num_bad_lines = 0

    def documents(self, texts: Iterator[str]) -> Iterator[str]:
        """What is kept of each row. Raises BadLine for a table whose first row names no kind of record."""
        csv.field_size_limit(MAX_CELL)
        reader = csv.reader(_lines(texts), delimiter=self._delimiter, strict=True)
        names: list[str] = []
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
                if not row or not any(cell.strip() for cell in row):
                    continue
                if not names:
                    names = _names(row)
                    continue
                yield self._shape.document(_record(names, row))
            except StopIteration:
                return
            except csv.Error as error:
                self._bad(BadLine("csv", why=str(error)), line)
            except BadLine as bad:
                if not names:
                    raise
                self._bad(bad, line)

    def _bad(self, bad: BadLine, line: int) -> None:
        self.num_bad_lines += 1
        if len(self.problems) < self._keep:
            self.problems.append({**bad.problem, "line": line})


def _names(row: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in row]
    if (detect_kind(dict.fromkeys(names, "")) == "text" and "text" not in names) or len(set(names)) < len(names):
        raise BadLine("columns", found=", ".join(names)[:200])
    return names


def _record(names: list[str], row: list[str]) -> dict[str, Any]:
    if len(row) != len(names):
        raise BadLine("row_length", found=len(row), expected=len(names))
    return dict(zip(names, row, strict=True))


def _lines(texts: Iterator[str]) -> Iterator[str]:
    """Whole lines with their ends, from pieces cut anywhere."""
    pending = ""
    for text in texts:
        *lines, pending = (pending + text).split("\n")
        for line in lines:
            yield line + "\n"
    if pending:
        yield pending
