"""Scores of texts in a file, so that a preview and the cleaning after it score no text twice."""

import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import xxhash

MAX_SCORES = 1_000_000  # in a file; further ones are not kept
_RECORD = struct.Struct("<16sd")  # the hash of a text, and its score


class ScoreCache:
    """The scores of one model. Several processes may add to the file at once, each record with one write.

    If it `is_read_only`, it keeps new scores only in memory.
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self._path, self._is_read_only = path, is_read_only
        self._scores: dict[bytes, float] = {}
        with suppress(FileNotFoundError):
            data = path.read_bytes()[: MAX_SCORES * _RECORD.size]
            self._scores = dict(_RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]))

    def get(self, text: str) -> float | None:
        """The score of a text, or None."""
        return self._scores.get(_key(text))

    def add(self, scores: Mapping[str, float]) -> None:
        """Keep the scores of texts, as far as there is room. A full disk only costs the file."""
        records = {_key(text): score for text, score in scores.items()}
        if not records or len(self._scores) + len(records) > MAX_SCORES:
            return
        self._scores |= records
        if self._is_read_only:
            return
        with suppress(OSError), self._path.open("ab") as file:
            misplaced = file.tell() % _RECORD.size  # a write that was cut off
            if misplaced:
                file.truncate(file.tell() - misplaced)
            file.write(b"".join(_RECORD.pack(*record) for record in records.items()))


def _key(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode(errors="replace"))
