"""Search in the parsed text of a corpus, without an index: one request reads the text for a bounded time.

A cursor is the byte of the text at which the search goes on, always between two characters.
"""

import codecs
import json
import mmap
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.core import storage
from app.core.models import Corpus

MAX_SECONDS = 1.0  # of one request
BLOCK_BYTES = 256 << 10  # of text that is searched at a time
MAX_QUERY_LENGTH = 200
AROUND_CHARACTERS = 80  # shown before and after a match
MAX_RECORD_BYTES = 256 << 10  # longer records are shown as they are stored

Index = mmap.mmap


@dataclass(frozen=True)
class Match:
    """A place where the text was found: the document, and the text there with its surroundings."""

    index: int
    before: str
    text: str
    after: str


@dataclass(frozen=True)
class Matches:
    """The matches of one request; `next` is the byte to go on at, None at the end of the corpus."""

    matches: list[Match]
    next: int | None
    num_searched_bytes: int  # of the text, from its beginning
    num_text_bytes: int


def search(corpus: Corpus, query: str, *, start: int = 0, limit: int = 20, seconds: float = MAX_SECONDS) -> Matches:
    """The places from byte `start` on at which a text occurs, in upper or lower case.

    In text every place is a match, in records the first of each record, in its values. Ends after `limit` matches or
    so many `seconds`.
    """
    directory = storage.corpus(corpus.id)
    try:
        with (directory / "index.bin").open("rb") as index, (directory / "text.bin").open("rb") as text:
            if not corpus.num_documents or not corpus.num_text_bytes or not query:
                return Matches([], None, 0, corpus.num_text_bytes or 0)
            with (
                mmap.mmap(index.fileno(), 0, access=mmap.ACCESS_READ) as ends,
                mmap.mmap(text.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                return _Search(data, ends, query, corpus.kind != "text").run(start, limit, seconds)
    except (FileNotFoundError, ValueError):  # being parsed again, deleted meanwhile, or empty
        return Matches([], None, 0, corpus.num_text_bytes or 0)


class _Search:
    def __init__(self, data: mmap.mmap, ends: mmap.mmap, query: str, is_records: bool) -> None:
        self._data, self._ends, self._is_records = data, ends, is_records
        self._plain = re.compile(re.escape(query), re.IGNORECASE)
        stored = json.dumps(query, ensure_ascii=False)[1:-1] if is_records else query
        self._stored = re.compile(re.escape(stored), re.IGNORECASE)
        self._overlap = 4 * len(stored) + 8  # bytes that a match can take at the end of a block
        self._num_documents = len(ends) // 8

    def run(self, start: int, limit: int, seconds: float) -> Matches:
        deadline = time.monotonic() + seconds
        matches: list[Match] = []
        position = self._boundary(start)
        size = len(self._data)
        while position < size:
            for match, after in self._in_block(position):
                position = after
                if match is not None:
                    matches.append(match)
                if len(matches) == limit or time.monotonic() > deadline:
                    break
            else:
                continue
            break
        ended = position >= size
        return Matches(matches, None if ended else position, min(position, size), size)

    def _in_block(self, start: int) -> Iterator[tuple[Match | None, int]]:
        """The matches that begin in the block from a byte on, each with the byte after it; then where to go on."""
        size = len(self._data)
        end = min(size, start + BLOCK_BYTES)
        text, num_bytes = codecs.utf_8_decode(self._data[start:end], "ignore", end == size)
        end = start + num_bytes
        position, offset = 0, start  # the same place in characters and in bytes
        while match := self._stored.search(text, position):
            place = offset + len(text[position : match.start()].encode())
            if end < size and place > end - self._overlap:
                break
            number = self._document_at(place)
            last = place + len(match.group().encode())
            document_end = self._end(number)
            position, offset = match.start() + 1, place + len(text[match.start()].encode())
            if last > document_end:  # it would reach into the next document
                continue
            if not self._is_records:
                position, offset = max(position, match.end()), max(offset, last)
                yield self._text_match(number, place, last), offset
                continue
            yield self._record_match(number, place, last), document_end
            if document_end >= end:
                return
            position = match.start() + len(self._data[place:document_end].decode())
            offset = document_end
        yield None, max(offset, end if end == size else end - self._overlap_at(end))

    def _overlap_at(self, end: int) -> int:
        """How many bytes before the end of a block the next one begins, between two characters."""
        return end - self._boundary(max(0, end - self._overlap))

    def _boundary(self, position: int) -> int:
        while 0 < position < len(self._data) and self._data[position] & 0xC0 == 0x80:
            position -= 1
        return position

    def _end(self, number: int) -> int:
        return int.from_bytes(self._ends[8 * number : 8 * number + 8], "little")

    def _document_at(self, position: int) -> int:
        """The document that has a byte: the first that ends after it."""
        low, high = 0, self._num_documents - 1
        while low < high:
            middle = (low + high) // 2
            if self._end(middle) > position:
                high = middle
            else:
                low = middle + 1
        return low

    def _text_match(self, number: int, place: int, last: int) -> Match:
        begin = self._boundary(max(self._end(number - 1) if number else 0, place - 4 * AROUND_CHARACTERS))
        around = min(self._end(number), last + 4 * AROUND_CHARACTERS)
        before = self._data[begin:place].decode("utf-8", "ignore")[-AROUND_CHARACTERS:]
        after = self._data[last:around].decode("utf-8", "ignore")[:AROUND_CHARACTERS]
        return Match(number, before, self._data[place:last].decode(), after)

    def _record_match(self, number: int, place: int, last: int) -> Match | None:
        """The first place in the values of a record; None if only its keys have the text.

        Of a long record it is the place where the text was found, which is not parsed.
        """
        begin, end = self._end(number - 1) if number else 0, self._end(number)
        if end - begin > MAX_RECORD_BYTES:
            return self._text_match(number, place, last)
        for value in _strings(json.loads(self._data[begin:end])):
            if match := self._plain.search(value):
                first, last = match.span()
                before, after = value[max(0, first - AROUND_CHARACTERS) : first], value[last : last + AROUND_CHARACTERS]
                return Match(number, before, match.group(), after)
        return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
