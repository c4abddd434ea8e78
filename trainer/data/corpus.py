"""Reads parsed corpora in chunks small enough to tokenize in bounded memory. Standard library and numpy."""

import codecs
import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.failure import Failure
from trainer.formats.corpus_kinds import group_hash
from trainer.run_dir import CorpusInput

CHUNK_BYTES = 1 << 20
MAPPED_BYTES = 16 << 20  # after which what was read of a mapped file is no longer counted as memory of the process

# Boundaries that pre-tokens never cross, whatever the context (see tokenizer.LLAMA_SPLIT): after a line break, before
# the space between two words, between a Chinese character and Chinese punctuation.
TOKEN_BOUNDARY = re.compile(
    r"(?<=\n)(?=\S)|(?<=[^\W_])(?= [^\W_])|(?<=[\u4e00-\u9fff])(?=[\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])"
)


@dataclass(frozen=True)
class TextChunk:
    """A part of a document. `ends_document` is true for its last chunk."""

    text: str
    num_bytes: int
    ends_document: bool
    is_safe: bool = True  # cut at a token boundary; false only for text without lines, words and punctuation


class CorpusReader:
    """The documents of one parsed corpus, mapped into memory. len() is the number of documents."""

    def __init__(self, source: CorpusInput) -> None:
        directory = Path(source.path)
        self._ends = np.fromfile(directory / "index.bin", dtype="<u8")
        self._file = (directory / "text.bin").open("rb")
        self._kind = source.kind
        self.num_bytes = int(self._ends[-1]) if len(self._ends) else 0

    def __len__(self) -> int:
        return len(self._ends)

    def chunks(self, chosen: Sequence[bool] | None = None) -> Iterator[TextChunk]:
        """All documents in order, long ones split at token boundaries. Of records, each of their strings.

        Only those that are `chosen`, one flag for each document.
        """
        if self._kind != "text":
            for number, record in enumerate(self.texts()):
                if chosen is None or chosen[number]:
                    yield from (TextChunk(text, len(text.encode()), True) for text in strings(record))
            return
        if not self.num_bytes:
            count = len(self) if chosen is None else sum(chosen)
            yield from (TextChunk("", 0, True) for _ in range(count))
            return
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            start = read = 0
            for number, end in enumerate(self._ends.tolist()):
                if chosen is None or chosen[number]:
                    yield from split_document(text, start, end)
                start = end
                if start - read > MAPPED_BYTES:
                    text.madvise(mmap.MADV_DONTNEED, read, MAPPED_BYTES)
                    read += MAPPED_BYTES

    def texts(self) -> Iterator[str]:
        """All documents in order, each as one string; a record is its JSON text."""
        start = 0
        for end in self._ends.tolist():
            yield os.pread(self._file.fileno(), end - start, start).decode()
            start = end

    def samples(self, count: int, max_bytes: int) -> Iterator[str]:
        """Pieces of the text, evenly spread over the corpus. Characters that a piece cuts are left out."""
        for start in range(0, self.num_bytes, max(1, self.num_bytes // count)):
            yield os.pread(self._file.fileno(), max_bytes, start).decode(errors="ignore")

    def hashes(self) -> Iterator[int]:
        """The `group_hash` of each document, read in blocks however long it is."""
        start = 0
        for end in self._ends.tolist():
            yield group_hash(self._blocks(start, end))
            start = end

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        for position in range(start, end, CHUNK_BYTES):
            yield os.pread(self._file.fileno(), min(CHUNK_BYTES, end - position), position)

    def close(self) -> None:
        """Close the text file."""
        self._file.close()


def strings(record: str) -> Iterator[str]:
    """All strings in a JSON record except roles and labels."""
    yield from _strings(json.loads(record))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            if key not in ("role", "label"):
                yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def open_all(sources: list[CorpusInput]) -> list[CorpusReader]:
    """Open the corpora of a run. Raises Failure if they contain no text at all."""
    corpora = [CorpusReader(source) for source in sources]
    if not sum(corpus.num_bytes for corpus in corpora):
        raise Failure("data_empty")
    return corpora


def split_document(text: mmap.mmap | bytes, start: int, end: int) -> Iterator[TextChunk]:
    """Split the document text[start:end] into chunks of at most CHUNK_BYTES."""
    while end - start > CHUNK_BYTES:
        chunk, _ = codecs.utf_8_decode(text[start : start + CHUNK_BYTES], "strict", False)  # may end inside a character
        cut = _last_boundary(chunk)
        chunk = chunk[:cut]  # without a boundary it is cut anywhere, which changes at most one token
        num_bytes = len(chunk.encode())
        yield TextChunk(chunk, num_bytes, False, cut is not None)
        start += num_bytes
    yield TextChunk(text[start:end].decode(), end - start, True)


def _last_boundary(chunk: str) -> int | None:
    """The last token boundary, searched near the end first."""
    for window in (1 << 12, len(chunk)):
        begin = max(0, len(chunk) - window)
        # The lookbehind needs one character before the window, and both sides of the cut must be non-empty.
        cuts = [match.start() for match in TOKEN_BOUNDARY.finditer(chunk, begin + 1, len(chunk))]
        if cuts:
            return cuts[-1]
    return None
