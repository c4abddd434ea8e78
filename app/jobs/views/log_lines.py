"""Searches the log of a run line by line: by text and by level, a bounded part of it at a time."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from app.core.paging import Listing
from app.jobs.views import logs

Level = Literal["info", "warning", "error"]
LeastLevel = Literal["warning", "error"]

SCAN_BYTES = 16 << 20  # that one search reads: a fraction of a second
CONTEXT_BYTES = 8 * 1024  # read on each side of a place
CONTEXT_LINES = 20  # shown on each side of a place
LINE_CHARACTERS = 2_000  # of a longer line the part around the hit is shown
_LEAD = 200  # characters before the hit in such a line

# A level that a logger wrote near the start of its line, then what marks the lines of Python, torch and other programs.
_LOGGED = re.compile(r"\b(?:(DEBUG|INFO)|(WARN(?:ING)?)|(ERROR|CRITICAL|FATAL))\b")
_LOGGED_WITHIN = 100
_ERROR = re.compile(
    r"^(?:\[\w+\]: ?)?Traceback \(|^Fatal |(?:[Ee]rror|Exception)\b(?: *:|$)|Segmentation fault|\[E\d{4} "
)
_WARNING = re.compile(r"[Ww]arning\b *:|\[W\d{4} ")
_ERROR_TRACES = ("error", "exception", "fatal", "critical", "traceback", "segmentation", "[e")
_TRACES = {"warning": ("warn", "[w", *_ERROR_TRACES), "error": _ERROR_TRACES}


class LogLine(BaseModel):
    """A line of a log. `offset` is that of its first byte."""

    offset: int
    text: str = Field(
        description=f"Of a line longer than {LINE_CHARACTERS} characters the part around the text searched for."
    )
    level: Level


def level_of(line: str) -> Level:
    """The level of a line: what a logger wrote at its start, or by what it looks like."""
    if logged := _LOGGED.search(line, 0, _LOGGED_WITHIN):
        return ("info", "warning", "error")[(logged.lastindex or 1) - 1]
    return "error" if _ERROR.search(line) else "warning" if _WARNING.search(line) else "info"


def search(
    path: Path, *, text: str, level: LeastLevel | None, after: int, limit: int, is_complete: bool
) -> Listing[LogLine]:
    """The lines from a byte on that contain a text, in upper or lower case, and have at least a level.

    Reads SCAN_BYTES at most: there may be further hits, or none, after a page with few lines.
    """
    wanted, offset, hits = text.casefold(), after, list[LogLine]()
    levels = {"warning": ("warning", "error"), "error": ("error",)}.get(level or "", ("info", "warning", "error"))
    while offset - after < SCAN_BYTES:
        chunk = logs.read_lines(path, offset, is_complete=is_complete)
        if chunk.next_offset == offset:
            return Listing(data=hits, next=None)
        for line in _lines(chunk) if _may_match(chunk.text, wanted, level) else ():
            place = line.text.casefold().find(wanted)
            if place < 0 or line.level not in levels:
                continue
            if len(hits) == limit:
                return Listing(data=hits, next=str(line.offset))
            hits.append(line.model_copy(update={"text": _around(line.text, place)}))
        offset = chunk.next_offset
    return Listing(data=hits, next=str(offset))


def around(path: Path, offset: int, *, is_complete: bool) -> Listing[LogLine]:
    """The lines around a byte of a log: CONTEXT_LINES on each side at most."""
    begin = logs.line_start(path, max(0, offset - CONTEXT_BYTES))
    lines = list[LogLine]()
    while begin <= offset + CONTEXT_BYTES:
        chunk = logs.read_lines(path, begin, is_complete=is_complete)
        if chunk.next_offset == begin:
            break
        lines += (line.model_copy(update={"text": _around(line.text, 0)}) for line in _lines(chunk))
        begin = chunk.next_offset
    before = [line for line in lines if line.offset <= offset][-CONTEXT_LINES - 1 :]
    return Listing(data=before + [line for line in lines if line.offset > offset][:CONTEXT_LINES], next=None)


def _may_match(text: str, wanted: str, level: LeastLevel | None) -> bool:
    """Whether a line of the text can match, which spares looking at each of them."""
    folded = text.casefold()
    return wanted in folded and (level is None or any(trace in folded for trace in _TRACES[level]))


def _lines(chunk: logs.LogLines) -> Iterator[LogLine]:
    offset = chunk.offset
    for text, size in zip(chunk.text.split("\n"), chunk.sizes, strict=False):
        yield LogLine(offset=offset, text=text, level=level_of(text))
        offset += size


def _around(line: str, place: int) -> str:
    if len(line) <= LINE_CHARACTERS:
        return line
    start = min(max(0, place - _LEAD), len(line) - LINE_CHARACTERS)
    return ("…" if start else "") + line[start : start + LINE_CHARACTERS] + "…"
