"""Reads the log of a run by byte offset, without control characters and never half a line or half a character."""

import re
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 64 * 1024  # the part of a long log that is shown first
CHUNK_BYTES = 64 * 1024
MAX_LINE_BYTES = 16 * 1024  # a longer line is cut: a program may print a gigabyte without a line end

# Escape sequences (CSI, OSC, two-byte); control characters except tab and line end; overwritten progress bars.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PROGRESS = re.compile(
    r"^[^\n]*\r(?=[^\n])", re.MULTILINE
)  # a progress bar overwrites its line: only its last state counts


@dataclass(frozen=True)
class LogChunk:
    """Text between two byte offsets of a log."""

    text: str
    offset: int
    next_offset: int


@dataclass(frozen=True)
class LogLines(LogChunk):
    """A chunk with the sizes of its lines in bytes, the line ends included."""

    sizes: tuple[int, ...]


def size(path: Path) -> int:
    """The size of a log in bytes; 0 if it does not exist yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tail_offset(path: Path) -> int:
    """The offset to start reading a log at: the start of a line, at most TAIL_BYTES before the end."""
    return line_start(path, max(0, size(path) - TAIL_BYTES))


def line_start(path: Path, begin: int) -> int:
    """The first byte of the next line from an offset on, or the offset itself within a line that is very long."""
    if begin == 0 or begin >= size(path):
        return begin
    with path.open("rb") as file:
        file.seek(begin)
        line = file.readline(MAX_LINE_BYTES)
    return begin + len(line) if line.endswith(b"\n") else begin


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log that is complete."""
    return read(path, tail_offset(path), is_complete=True).text.splitlines()[-count:]


def read(path: Path, offset: int, *, until: int | None = None, is_complete: bool = False) -> LogChunk:
    """The next chunk of a log from an offset, of at most CHUNK_BYTES, up to the offset `until`.

    A line that is still being written is left out, unless the log `is_complete`.
    """
    data = _take(path, offset, until, is_complete=is_complete)
    return LogChunk(clean(data.decode(errors="replace")), offset, offset + len(data))


def read_lines(path: Path, offset: int, *, is_complete: bool) -> LogLines:
    """The next chunk of a log, and how long its lines are."""
    data = _take(path, offset, None, is_complete=is_complete)
    sizes = tuple(len(line) + 1 for line in data.removesuffix(b"\n").split(b"\n")) if data else ()
    return LogLines(clean(data.decode(errors="replace")), offset, offset + len(data), sizes)


def _take(path: Path, offset: int, until: int | None, *, is_complete: bool) -> bytes:
    end = size(path) if until is None else until
    if offset >= end:
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(min(CHUNK_BYTES, end - offset))
    ends_here = until is not None or (is_complete and offset + len(data) == end)
    return data if ends_here and len(data) < CHUNK_BYTES else data[: _cut(data)]


def _cut(data: bytes) -> int:
    """How many bytes of `data` to take: complete lines, or complete characters if no line ends in it."""
    lines_end = data.rfind(b"\n") + 1
    if lines_end or len(data) < MAX_LINE_BYTES:
        return lines_end
    for back in range(1, 4):  # a UTF-8 character has at most three bytes after the first
        if data[-back] & 0xC0 == 0xC0:
            return len(data) - back
        if data[-back] < 0x80:
            break
    return len(data)


def clean(text: str) -> str:
    """The text without escape sequences and control characters, with only the last state of progress bars."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    return _CONTROLS.sub("", _PROGRESS.sub("", text))
