"""The log of a run as people read it: by byte offset, without control characters, never half a line or character."""

import re
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 64 * 1024  # what is shown first of a long log
CHUNK_BYTES = 64 * 1024
LONGEST_LINE = 16 * 1024  # a longer one is cut: somebody may print a gigabyte without a line end

# Escape sequences (CSI, OSC, two-byte), then every control character but tab and line end.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PROGRESS = re.compile(r"[^\n]*\r(?=[^\n])")  # a progress bar overwrites its line: only its last state counts


@dataclass(frozen=True)
class Piece:
    """Text between two byte offsets of a log."""

    text: str
    offset: int
    next_offset: int


def size(path: Path) -> int:
    """Bytes in the log; 0 where there is none yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tail_offset(path: Path) -> int:
    """Where to begin to read a log that nobody has seen: at a line, TAIL_BYTES before the end."""
    begin = max(0, size(path) - TAIL_BYTES)
    if begin == 0:
        return 0
    with path.open("rb") as file:
        file.seek(begin)
        line = file.readline(LONGEST_LINE)
    return begin + len(line) if line.endswith(b"\n") else begin


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log that nobody writes to any more."""
    return read(path, tail_offset(path), is_whole=True).text.splitlines()[-count:]


def read(path: Path, offset: int, *, until: int | None = None, is_whole: bool = False) -> Piece:
    """The next piece from an offset on. A line still being written is left, unless the log `is_whole`."""
    end = size(path) if until is None else until
    if offset >= end:
        return Piece("", offset, offset)
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(min(CHUNK_BYTES, end - offset))
    ends_here = until is not None or (is_whole and offset + len(data) == end)
    data = data if ends_here and len(data) < CHUNK_BYTES else data[: _cut(data)]
    return Piece(clean(data.decode(errors="replace")), offset, offset + len(data))


def _cut(data: bytes) -> int:
    """How many bytes to take: complete lines; of one endless line, complete characters."""
    lines_end = data.rfind(b"\n") + 1
    if lines_end or len(data) < LONGEST_LINE:
        return lines_end
    for back in range(1, 4):  # UTF-8 has at most three bytes behind the first
        if data[-back] & 0xC0 == 0xC0:
            return len(data) - back
        if data[-back] < 0x80:
            break
    return len(data)


def clean(text: str) -> str:
    """Without escape sequences and control characters, progress bars in their last state."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    return _CONTROLS.sub("", _PROGRESS.sub("", text))
