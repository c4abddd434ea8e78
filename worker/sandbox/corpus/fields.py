"""Takes the fields of a JSON object one by one, checks what will be stored, and knows which keys were not read.

Standard library only: the limited child of parse.py imports this.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from trainer.formats import strict_json

Record = dict[str, Any]

KEPT_PROBLEMS = 100
SHOWN_CHARACTERS = 80  # of a key or a value in a message


class BadLine(Exception):
    """A line that is not a document. `problem` has the code and the values of its message, all fit to be stored.

    Of a record of several lines, the fault is `lines_down` below the first.
    """

    def __init__(self, code: str, lines_down: int = 0, **values: Any) -> None:
        super().__init__(code)
        self.lines_down = lines_down
        self.problem = {
            "code": code,
            **{name: storable(value) if type(value) is str else value for name, value in values.items()},
        }


class BadLines:
    """The bad lines of a file: how many there are of each code, and `problems` of the first, at least one of a code.

    `num_skipped` is the number of documents that are left out because bytes of them cannot be decoded. `file` is the
    member of an archive that is being read.
    """

    def __init__(self) -> None:
        self.problems: list[dict[str, Any]] = []
        self._codes: Counter[str] = Counter()
        self.num_skipped = 0
        self.file: str | None = None
        self.remarks: list[dict[str, Any]] = []
        self.num_remarks = 0

    def __len__(self) -> int:
        return self._codes.total()

    def add(self, bad: BadLine, line: int | None, **place: int) -> None:
        """Remember a bad line by its number and its byte, if that is known; without a number it is the whole file."""
        code = bad.problem["code"]
        if len(self.problems) < KEPT_PROBLEMS or code not in self._codes:
            number = {} if line is None else {"line": line + bad.lines_down}
            self.problems.append({**bad.problem, **number, **place, **self._in_file()})
        self._codes[code] += 1

    def remark(self, code: str, **values: Any) -> None:
        """Remember something to know of a file that is read nevertheless."""
        self.num_remarks += 1
        if len(self.remarks) < KEPT_PROBLEMS:
            self.remarks.append({**BadLine(code, **values).problem, **self._in_file()})

    def _in_file(self) -> dict[str, str]:
        return {} if self.file is None else {"file": storable(self.file)}

    def skip_document(self) -> None:
        """Count a document that is left out because bytes of it cannot be decoded."""
        self.num_skipped += 1

    def facts(self) -> dict[str, Any]:
        """What was counted, for people to see."""
        return {
            "num_bad_lines": len(self),
            "bad_lines": dict(self._codes.most_common()),
            "num_skipped_documents": self.num_skipped,
            "remarks": self.remarks,
            "num_remarks": self.num_remarks,
        }


def storable(text: str) -> str:
    r"""The text with each lone surrogate and each NUL, which PostgreSQL refuses, as an escape such as \ud83d."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")


def text_fault(text: str) -> tuple[str, dict[str, int]] | None:
    """Why a string cannot be stored: "nul" or "surrogate" with the place, counted from 1; None if it can."""
    if "\0" in text:
        return "nul", {}
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return "surrogate", {"character": error.start + 1}
    return None


class Fields:
    """A JSON object that is being read. `rest` has the keys that were not read yet, with their values.

    `place` is what its error messages refer to: "field" of a record, "text" of a line of plain text, or "message" with
    its `number`. With `has_context`, the key `context` follows the prompt.
    """

    def __init__(
        self, values: Mapping[str, Any], place: str = "field", number: int | None = None, has_context: bool = False
    ) -> None:
        self.rest: Record = dict(values)
        self._place, self.number, self.has_context = place, number, has_context

    def bad(self, fault: str, key: str, **values: Any) -> BadLine:
        """The exception for a fault of one field."""
        if self._place == "text":
            return BadLine("surrogate" if fault == "surrogate" else f"text_{fault}", **values)
        if self.number is not None:
            values["number"] = self.number
        return BadLine(f"{self._place}_{fault}", field=key[:SHOWN_CHARACTERS], **values)

    def has(self, *keys: str) -> bool:
        """Whether all these keys exist and were not read yet."""
        return all(key in self.rest for key in keys)

    def take(self, key: str) -> Any:
        """Remove a key and return its checked value; None if it is missing. Raises BadLine."""
        value = self.rest.pop(key, None)
        self._check(value, key)
        return value

    def pop(self, key: str) -> Any:
        """The value of a key whose parts are checked one by one elsewhere; None if it is missing."""
        return self.rest.pop(key, None)

    def text(self, key: str, *, may_be_blank: bool = False) -> str:
        """The string of a key. Raises BadLine if it is missing, no string, or blank."""
        if key not in self.rest:
            raise self.bad("missing", key)
        value = self.pop(key)
        if type(value) is not str:
            raise self.bad("not_string", key)
        self._check(value, key)
        if not may_be_blank and (not value or value.isspace()):
            raise self.bad("empty", key)
        return value

    def optional_text(self, *keys: str) -> str:
        """The string of the first of these keys whose value is neither null nor blank; "" if there is none."""
        for key in keys:
            if self.has(key):
                value = self.take(key)
                if value is not None and type(value) is not str:
                    raise self.bad("not_string", key)
                if value and not value.isspace():
                    return str(value)
        return ""

    def parsed(self, text: str, key: str) -> Any:
        """The checked value of JSON inside the string of a key. Raises BadLine."""
        try:
            value = strict_json.loads(text)
        except (strict_json.InfiniteNumber, strict_json.InvalidConstant):
            raise self.bad("infinite", key) from None
        except ValueError:
            raise self.bad("not_json", key) from None
        self._check(value, key)
        return value

    def _check(self, value: Any, key: str) -> None:
        """Whether all strings and keys in a value can be stored. Raises BadLine, and RecursionError."""
        if type(value) is str:
            fault = text_fault(value)
            if fault is not None:
                raise self.bad(fault[0], key, **fault[1])
        elif type(value) is list:
            for part in value:
                self._check(part, key)
        elif type(value) is dict:
            for name, part in value.items():
                self._check(name, key)
                self._check(part, key)
