"""The columns of records: what the first of them hold, and paths into objects, such as answers.text[0].

Standard library only: the limited child of parse.py imports this.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from worker.sandbox.corpus.fields import SHOWN_CHARACTERS, Record, storable

OBSERVED_RECORDS = 1_000  # by which columns are described
MAX_COLUMNS = 100  # that are described
SAMPLE_CHARACTERS = 120
TYPES = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    list: "list",
    dict: "object",
    type(None): "null",
}


class Column:
    """A key of records, as the first of them have it: in how many it is, with values of which types, and one value."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_used = False
        self._num_records = 0
        self._types: Counter[str] = Counter()
        self._sample = ""

    def observe(self, value: Any) -> None:
        """Count one value."""
        self._num_records += 1
        self._types[TYPES.get(type(value), "object")] += 1
        if not self._sample and value not in (None, "", [], {}):
            self._sample = storable(_text(value)[:SAMPLE_CHARACTERS])

    def facts(self) -> dict[str, Any]:
        """What was seen, for people."""
        types = [name for name, _number in self._types.most_common()]
        names = {"name": self.name, "types": types, "num_records": self._num_records}
        return {**names, "sample": self._sample, "used": self.is_used}


class Columns:
    """The columns of the first thousand records: their keys, and the keys inside of objects by their paths."""

    def __init__(self) -> None:
        self._columns: dict[str, Column] = {}
        self._roots: dict[str, str] = {}  # of nested columns
        self._num_observed = 0

    def observe(self, record: Record) -> bool:
        """Count the values of a record, and return True; False after the first thousand."""
        if self._num_observed == OBSERVED_RECORDS:
            return False
        self._num_observed += 1
        for key, value in record.items():
            self._observe(key, value)
        for key, value in record.items():
            for path, inner in nested_columns(key, value):
                if self._observe(path, inner) and path not in record:
                    self._roots[storable(path[:SHOWN_CHARACTERS])] = storable(key[:SHOWN_CHARACTERS])
        return True

    def _observe(self, key: str, value: Any) -> bool:
        name = storable(key[:SHOWN_CHARACTERS])
        if name not in self._columns and len(self._columns) < MAX_COLUMNS:
            self._columns[name] = Column(name)
        if name in self._columns:
            self._columns[name].observe(value)
        return name in self._columns

    def use(self, names: Collection[str]) -> None:
        """Mark columns as used."""
        for column in self._columns.values():
            column.is_used |= column.name in names

    def facts(self) -> list[dict[str, Any]]:
        """What was seen, for people; of a nested column with the one that it is `inside` of."""
        return [
            {**column.facts(), **({"inside": self._roots[column.name]} if column.name in self._roots else {})}
            for column in self._columns.values()
        ]


def _text(value: Any) -> str:
    try:
        return value if type(value) is str else json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "…"


# ---- columns inside of columns --------------------------------------------------------------------------------------

_PART = re.compile(r"([^.\[\]]+)((?:\[\d{1,6}\])*)")


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """The value of a key, or of a path into objects and lists such as answers.text[0]; None if there is none."""
    if path in record or not is_path(path):
        return record.get(path)
    value: Any = record
    for part in path.split("."):
        match = _PART.fullmatch(part)
        value = value.get(match[1]) if match and isinstance(value, Mapping) else None
        for number in re.findall(r"\d+", match[2]) if match else ():
            value = value[int(number)] if type(value) is list and int(number) < len(value) else None
    return value


def is_path(column: str) -> bool:
    """Whether the name of a column is written as a path."""
    return "." in column or "[" in column


def root_of(record: Mapping[str, Any], path: str) -> str:
    """The key of a record that a path begins with."""
    return path if path in record else re.split(r"[.\[]", path, maxsplit=1)[0]


def nested_columns(key: str, value: Any) -> list[tuple[str, Any]]:
    """The values inside of an object, by their paths; of a list in it, the first item."""
    if type(value) is not dict:
        return []
    columns: list[tuple[str, Any]] = []
    for name, inner in value.items():
        if not _PART.fullmatch(name):
            continue
        path = f"{key}.{name}"
        columns.append((f"{path}[0]", inner[0]) if type(inner) is list and inner else (path, inner))
    return columns


def unread_parts(record: Record, paths: Collection[str]) -> Iterator[str]:
    """What is left out of the objects that paths lead into: the other keys inside of them, and the rest of lists."""
    for key, value in record.items():
        if key in paths or not any(root_of(record, path) == key for path in paths):
            continue
        if type(value) is list and len(value) > 1:
            yield f"{key}[1:]"
        for path, _inner in nested_columns(key, value):
            name = path.removesuffix("[0]")
            if not any(other == name or other.startswith((f"{name}.", f"{name}[")) for other in paths):
                yield name
            elif path in paths and name != path and len(value[name.removeprefix(f"{key}.")]) > 1:
                yield f"{name}[1:]"
