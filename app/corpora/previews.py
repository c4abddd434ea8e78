"""Reads parsed corpora for display: any document in O(1) by the index."""

import os
import struct
from dataclasses import dataclass
from typing import Any

from app.core import storage

PREVIEW_CHARACTERS = 500
RECORD_CHARACTERS = 20_000  # a record is shown whole or not taken apart


@dataclass(frozen=True)
class DocumentPreview:
    """The beginning of a document. `cut` says that there is more."""

    index: int
    num_bytes: int
    text: str
    cut: bool


def documents(corpus_id: str, start: int, limit: int, *, characters: int = PREVIEW_CHARACTERS) -> list[DocumentPreview]:
    """The beginnings of `limit` documents from number `start` on; empty after the last one."""
    directory = storage.corpus(corpus_id)
    try:
        with (directory / "index.bin").open("rb") as index, (directory / "text.bin").open("rb") as text:
            ends = _ends(index, start, limit)
            return [_document(text, start + n, ends[n], ends[n + 1], characters) for n in range(len(ends) - 1)]
    except FileNotFoundError:  # being parsed again, or deleted meanwhile
        return []


def _ends(index: Any, start: int, limit: int) -> list[int]:
    if start * 8 >= os.fstat(index.fileno()).st_size:
        return []
    index.seek(max(0, start - 1) * 8)
    data = index.read((limit + (start > 0)) * 8)
    ends = [number for (number,) in struct.iter_unpack("<Q", data)]
    return ends if start else [0, *ends]


def _document(file: Any, number: int, begin: int, end: int, characters: int) -> DocumentPreview:
    file.seek(begin)
    data: bytes = file.read(min(end - begin, characters * 4))
    text = data.decode("utf-8", "ignore")  # the last character may be cut
    preview = text[:characters]
    return DocumentPreview(number, end - begin, preview, len(preview.encode()) < end - begin)
