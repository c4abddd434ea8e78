"""Reads JSON into documents: one object a line, or one array of objects. Standard library only."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from trainer.formats import strict_json
from worker.sandbox.corpus.decoding import BOM, SKIPPED
from worker.sandbox.corpus.fields import BadLine, BadLines, Record
from worker.sandbox.corpus.record_schema import RecordReader

MAX_LINE_CHARACTERS = 16 << 20

BLANK = f"{BOM} \t\r\n"  # between records

_JOINED = re.compile(rf"(?<=\}})\s*{BOM}\s*(?=\{{)")  # the end of a file and the beginning of the next
_STRUCTURE = re.compile(r'\\.|["\[\]{},]', re.DOTALL)
SYNTAX_CODES = ("half_line", "not_json", "trailing_comma")  # whose `character` counts from the beginning of a line


def parse_record(text: str) -> Record:
    """The object that a text is. Raises BadLine."""
    try:
        record = strict_json.loads(text)
    except strict_json.DuplicateKey as error:
        raise BadLine("duplicate_key", key=error.key[:80]) from None
    except strict_json.InvalidConstant as error:
        raise BadLine("constant", word=error.word) from None
    except strict_json.InfiniteNumber as error:
        raise BadLine("number_infinite", word=error.word) from None
    except json.JSONDecodeError as error:
        raise _syntax_error(text, error) from None
    except RecursionError:
        raise BadLine("too_deep") from None
    except ValueError:  # a number with thousands of digits
        raise BadLine("not_json", character=1) from None
    if type(record) is not dict:
        raise BadLine("not_object")
    return record


def _syntax_error(text: str, error: json.JSONDecodeError) -> BadLine:
    before, after = text[: error.pos].rstrip(), text[error.pos :].strip()
    if after == "," or (after[:1] in ("}", "]") and before.endswith(",")):
        comma = error.pos if after == "," else len(before) - 1
        line, column = text.count("\n", 0, comma), comma - text.rfind("\n", 0, comma)
        return BadLine("trailing_comma", line, character=column)
    is_cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
    return BadLine("half_line" if is_cut else "not_json", error.lineno - 1, character=error.colno)


@dataclass(frozen=True)
class Place:
    """Where in a file a text begins: the line, the characters before it in that line, the byte if it is known."""

    line: int
    column: int
    byte: int | None

    def after(self, text: str) -> "Place":
        """Where the text that begins here ends."""
        num_lines = text.count("\n")
        return Place(
            self.line + num_lines,
            len(text) - text.rfind("\n") - 1 if num_lines else self.column + len(text),
            None if self.byte is None else self.byte + len(text.encode()),
        )


class JsonRecords:
    """Reads the records of a file into documents and remembers the bad ones.

    `write` takes documents. `first_byte` is where the text starts; None if byte positions are unknown, because the
    file is not UTF-8 or parts of it were left out.
    """

    def __init__(
        self, write: Callable[[list[str]], None], shape: RecordReader, bad_lines: BadLines, first_byte: int | None
    ) -> None:
        self._write, self._shape, self._bad_lines = write, shape, bad_lines
        self._place = Place(1, 0, first_byte)  # where the next characters begin

    def parse(self, texts: Iterator[str]) -> None:
        """Read all records. One longer than the limit is bad, and is never held whole."""
        start = ""
        for text in texts:
            before = start + text
            start = before.lstrip(BLANK)
            self._place = self._place.after(before[: len(before) - len(start)])
            if len(start) >= 3:
                break
        if start.startswith("["):
            self._parse_arrays(chain([start], texts))
        elif start.startswith(("{\n", "{\r\n")):
            self._bad(BadLine("json_object"), self._place)
        else:
            self._parse_lines(chain([start], texts))

    def _bad(self, bad: BadLine, place: Place) -> None:
        character = bad.problem.get("character")
        if type(character) is int and bad.problem["code"] in SYNTAX_CODES and not bad.lines_down:
            bad.problem["character"] = character + place.column
        self._bad_lines.add(bad, place.line, **({} if place.byte is None else {"byte": place.byte}))

    # ---- one object a line ------------------------------------------------------------------------------------------

    def _parse_lines(self, texts: Iterator[str]) -> None:
        pending = ""
        skipping = False
        for text in texts:
            if skipping:
                rest_of_line, newline, text = text.partition("\n")
                self._place = self._place.after(rest_of_line + newline)
                skipping = not newline
            complete, newline, rest = text.rpartition("\n")
            if newline:
                self._lines(pending + complete + newline)
                pending = rest
            else:
                pending += text
            if len(pending) > MAX_LINE_CHARACTERS:
                self._bad(BadLine("line_too_long"), self._place)
                self._place = self._place.after(pending)
                pending = ""
                skipping = True
        self._lines(pending)

    def _lines(self, text: str) -> None:
        documents: list[str] = []
        start = counted = 0  # where the line begins; up to where `_place` counts
        for line in text.split("\n"):
            if SKIPPED in line:
                self._bad_lines.skip_document()
            elif line and not line.isspace():
                try:
                    documents += self._documents_of_line(line)
                except BadLine as bad:
                    self._place = self._place.after(text[counted:start])
                    counted = start
                    self._bad(bad, self._place)
            start += len(line) + 1
        self._write(documents)
        self._place = self._place.after(text[counted:])

    def _documents_of_line(self, line: str) -> list[str]:
        """The document of a line, of several where files were joined without a line break. Raises BadLine."""
        if line.startswith(BOM):
            line = line.lstrip(BOM)
            if not line.strip():
                return []
        if len(line) > MAX_LINE_CHARACTERS:
            raise BadLine("line_too_long")
        try:
            records = [parse_record(line)]
        except BadLine:
            parts = _JOINED.split(line)
            if len(parts) == 1:
                raise
            records = [parse_record(part) for part in parts]
        return [self._shape.document(record) for record in records]

    # ---- arrays -----------------------------------------------------------------------------------------------------

    def _parse_arrays(self, texts: Iterator[str]) -> None:
        """Read the elements of an array, or of several one after the other."""
        is_inside = False
        num_elements = size = 0
        element: list[str] = []  # the text since the last separator, no more than the limit
        start = self._place
        for text, mark in _array_parts(texts):
            size += len(text)
            element += [text] if size <= MAX_LINE_CHARACTERS else []
            self._place = self._place.after(text + mark)
            if not mark:
                continue
            if not is_inside and (mark != "[" or "".join(element).strip(BLANK)):
                self._bad(BadLine("array_rest"), start)
                return
            if is_inside and (mark == "," or num_elements or "".join(element).strip()):
                self._element("".join(element) if size <= MAX_LINE_CHARACTERS else None, mark, start)
            num_elements = num_elements + 1 if is_inside else 0
            is_inside = mark in ("[", ",")
            element, size, start = [], 0, self._place
        if is_inside:
            self._bad(BadLine("array_unclosed"), start)
        elif "".join(element).strip(BLANK):
            self._bad(BadLine("array_rest"), start)

    def _element(self, text: str | None, mark: str, start: Place) -> None:
        if text is None:
            self._bad(BadLine("line_too_long"), start)
            return
        if mark == "]" and not text.strip():
            comma = Place(start.line, start.column - 1, None if start.byte is None else start.byte - 1)
            self._bad(BadLine("trailing_comma", character=1), comma)
            return
        if SKIPPED in text:
            self._bad_lines.skip_document()
            return
        try:
            self._write([self._shape.document(parse_record(text.lstrip()))])
        except BadLine as bad:
            self._bad(bad, start.after(text[: len(text) - len(text.lstrip())]))


def _array_parts(texts: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Cuts the text of arrays at the commas and brackets outside of their elements.

    Yields each text with the separator after it, which is empty where only a piece of the file ended.
    """
    depth = 0
    in_string = False
    pending = ""  # a backslash, whose next character is in the next piece
    for piece in texts:
        piece = pending + piece
        num_backslashes = len(piece) - len(piece.rstrip("\\"))
        pending = "\\" if num_backslashes % 2 else ""
        piece = piece[: len(piece) - len(pending)]
        done = 0
        for match in _STRUCTURE.finditer(piece):
            mark = match[0]
            if mark == '"' and depth:
                in_string = not in_string
            if in_string or mark.startswith("\\"):
                continue
            is_separator = not depth or (depth == 1 and mark in ",]}")
            depth += (mark in "[{") - (mark in "]}" and depth > 0)
            if is_separator:
                yield piece[done : match.start()], mark
                done = match.end()
        yield piece[done:], ""
    yield pending, ""
