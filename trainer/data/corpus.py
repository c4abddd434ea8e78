"""Reads parsed corpora: documents, in pieces small enough to tokenise in bounded memory. Standard library and numpy."""

import codecs
import json
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.failure import Failure
from trainer.run_dir import CorpusInput

PIECE_BYTES = 1 << 20

# Places where the tokenizer's pre-tokens always part, whatever stands before and after (see tokenizer.SPLIT): behind a
# line's end, before the space between two words, between a punctuation mark and a Chinese character.
SAFE_CUT = re.compile(
    r"(?<=\n)(?=\S)|(?<=[^\W_])(?= [^\W_])|(?<=[\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])(?=[\u4e00-\u9fff])"
)


@dataclass(frozen=True)
class TextChunk:
    """A part of a document. `ends_document` is true of its last one."""

    text: str
    num_bytes: int
    ends_document: bool
    is_safe: bool = True  # cut where tokens part; always so in text that has lines, words or punctuation


class Corpus:
    """The documents of one parsed corpus, mapped into memory."""

    def __init__(self, source: CorpusInput) -> None:
        directory = Path(source.path)
        self._ends = np.fromfile(directory / "index.bin", dtype="<u8")
        self._file = (directory / "text.bin").open("rb")
        self._kind = source.kind
        self.num_bytes = int(self._ends[-1]) if len(self._ends) else 0

    def __len__(self) -> int:
        return len(self._ends)

    def chunks(self) -> Iterator[TextChunk]:
        """All documents in order, long ones cut where it does not change their tokens; of records, each text."""
        if self._kind != "text":
            yield from (
                TextChunk(text, len(text.encode()), True) for record in self.texts() for text in strings(record)
            )
            return
        if not self.num_bytes:
            yield from (TextChunk("", 0, True) for _ in range(len(self)))
            return
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            start = 0
            for end in self._ends.tolist():
                yield from split_document(text, start, end)
                start = end

    def texts(self) -> Iterator[str]:
        """All documents in order, each whole."""
        start = 0
        for end in self._ends.tolist():
            yield os.pread(self._file.fileno(), end - start, start).decode()
            start = end

    def close(self) -> None:
        self._file.close()


def strings(record: str) -> Iterator[str]:
    """The texts in a record: all strings but the names of roles and labels."""
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


def open_all(sources: list[CorpusInput]) -> list[Corpus]:
    """The corpora of a run. Raises Failure if they hold no text at all."""
    corpora = [Corpus(source) for source in sources]
    if not sum(corpus.num_bytes for corpus in corpora):
        raise Failure("data_empty")
    return corpora


def split_document(text: mmap.mmap | bytes, start: int, end: int) -> Iterator[TextChunk]:
    """One document in pieces of at most PIECE_BYTES."""
    while end - start > PIECE_BYTES:
        piece, _ = codecs.utf_8_decode(text[start : start + PIECE_BYTES], "strict", False)  # may end inside a character
        place = _last_safe_cut(piece)
        piece = piece[:place]  # a text that offers no place is cut anywhere, which costs a token at most
        num_bytes = len(piece.encode())
        yield TextChunk(piece, num_bytes, False, place is not None)
        start += num_bytes
    yield TextChunk(text[start:end].decode(), end - start, True)


def _last_safe_cut(piece: str) -> int | None:
    """The last place where tokens part, looked for near the end first."""
    for window in (1 << 12, len(piece)):
        begin = max(0, len(piece) - window)
        # The lookbehind needs one character before the window, the cut must leave something on both sides.
        cuts = [match.start() for match in SAFE_CUT.finditer(piece, begin + 1, len(piece))]
        if cuts:
            return cuts[-1]
    return None
