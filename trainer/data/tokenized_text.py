"""Tokenized text in memory-mapped files, cut into sequences that are a pure function of (seed, n). Imports no torch."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel
from tokenizers import Tokenizer

from trainer.batch_shapes import Document
from trainer.data import cache, sample_order
from trainer.data.batch import Array
from trainer.data.corpus import CorpusReader, TextChunk, open_all
from trainer.data.record_encoding import RecordRefused
from trainer.data.tokenizer import END_OF_TEXT, Progress, token_bytes
from trainer.data.tokenizer_process import TokenizerProcess
from trainer.failure import Failure
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec

VERSION = 1  # increase when the same text and tokenizer would give different files
BATCH_BYTES = 4 << 20  # text tokenized at a time, over all threads

Encode = Callable[[Sequence[str]], Iterator[list[int] | RecordRefused]]  # of texts: the tokens of each
DocumentTokens = tuple[Sequence[int], int]  # the tokens before a document, and the one after it
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]  # shape (tokens,)
Rows = np.ndarray[tuple[int, int], np.dtype[np.int64]]  # shape (samples, tokens)


class TokenizedTextMeta(BaseModel):
    """`meta.json` of a directory of tokenized text."""

    sha256: str
    dtype: str
    num_tokens: int
    num_bytes: int
    num_documents: list[int]  # of each corpus


def tokenize_cached(
    sources: list[CorpusInput],
    tokenizer: Tokenizer,
    tokenizer_sha256: str,
    cache_path: Path,
    progress: Progress,
    end_of_text: int | None = None,
    start_ids: Sequence[int] = (),
    hostile: Path | None = None,
) -> Path:
    """The directory with these corpora tokenized, created unless it is in the cache.

    `hostile` is the directory of the tokenizer unless it was trained here: a process with limits encodes then.
    `end_of_text` is the token id to write after each document; the default is that of tokenizers trained here.
    `start_ids` are written before each document. Raises Failure if the corpora have no text, or text that takes the
    tokenizer too much time or memory.
    """
    start = {"start": list(start_ids)} if start_ids else {}
    corpora = [source.sha256 for source in sources]
    name = cache.cache_key(corpora=corpora, tokenizer=tokenizer_sha256, version=VERSION, **start)
    entry = cache_path / "tokens" / name
    end = tokenizer.token_to_id(END_OF_TEXT) if end_of_text is None else end_of_text
    assert end is not None, "tokenizer.load checks it"

    def create(path: Path) -> None:
        with _encoder(tokenizer, hostile) as encode:
            tokenize(sources, tokenizer, encode, (start_ids, end), name, path, progress)

    cache.get_or_create(entry, create, corpora)
    return entry


@contextmanager
def _encoder(tokenizer: Tokenizer, hostile: Path | None) -> Iterator[Encode]:
    if hostile is not None:
        with TokenizerProcess(hostile, with_text=True) as process:
            yield process.texts
        return

    def encode(texts: Sequence[str]) -> Iterator[list[int] | RecordRefused]:
        yield from (list(one.ids) for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))

    yield encode


def tokenize(
    sources: list[CorpusInput],
    tokenizer: Tokenizer,
    encode: Encode,
    around: DocumentTokens,
    name: str,
    directory: Path,
    progress: Progress,
) -> None:
    """Tokenize corpora into a directory.

    Writes `tokens.bin` (ids, with the tokens `around` each document), `documents.bin` (the offset after each
    document, in tokens) and `meta.json`. Memory is bounded by BATCH_BYTES, however long a document is. Raises Failure
    if the corpora have no text.
    """
    corpora = open_all(sources)
    total = sum(corpus.num_bytes for corpus in corpora)
    dtype = "<u2" if tokenizer.get_vocab_size() <= 1 << 16 else "<u4"
    done = num_tokens = 0
    starts_document = True
    with (directory / "tokens.bin").open("wb") as tokens, (directory / "documents.bin").open("wb") as documents:
        for batch in _batches(corpora):
            encoded = _encode(batch, encode, around, starts_document)
            try:
                num_tokens = _write(batch, encoded, dtype, num_tokens, tokens, documents)
            except _TextRefused as refused:
                raise _failure(refused, documents.tell() // 8, sources, corpora) from None
            starts_document = batch[-1].ends_document
            done += sum(chunk.num_bytes for chunk in batch)
            progress(done, total)
        for file in (tokens, documents):
            file.flush()
            os.fsync(file.fileno())
    meta = TokenizedTextMeta(
        sha256=name, dtype=dtype, num_tokens=num_tokens, num_bytes=total, num_documents=[len(c) for c in corpora]
    )
    (directory / "meta.json").write_text(meta.model_dump_json())


class _TextRefused(Exception):
    """A chunk of text cannot be encoded: the number of documents that end before it in its batch, and the reason."""

    def __init__(self, num_before: int, why: RecordRefused) -> None:
        self.num_before, self.why = num_before, why


def _failure(
    refused: _TextRefused, num_written: int, sources: list[CorpusInput], corpora: list[CorpusReader]
) -> Failure:
    number = num_written + refused.num_before
    position = 0
    while position + 1 < len(corpora) and number >= len(corpora[position]):
        number -= len(corpora[position])
        position += 1
    return Failure("record_refused", corpus=sources[position].id, record=number + 1, why=refused.why.message)


def _batches(corpora: list[CorpusReader]) -> Iterator[list[TextChunk]]:
    batch: list[TextChunk] = []
    size = 0
    for corpus in corpora:
        for chunk in corpus.chunks():
            batch.append(chunk)
            size += chunk.num_bytes + 64  # so that a million empty documents do not make one batch
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _encode(
    batch: list[TextChunk], encode: Encode, around: DocumentTokens, starts_document: bool
) -> Iterator[list[int]]:
    """The tokens of each chunk, with those that start and end documents. Raises _TextRefused."""
    start_ids, end_of_text = around
    num_ended = 0
    for chunk, ids in zip(batch, encode([chunk.text for chunk in batch]), strict=True):
        if isinstance(ids, RecordRefused):
            raise _TextRefused(num_ended, ids)
        yield [*(start_ids if starts_document else ()), *ids, *([end_of_text] if chunk.ends_document else ())]
        starts_document = chunk.ends_document
        num_ended += chunk.ends_document


def _write(
    batch: list[TextChunk],
    encoded: Iterator[list[int]],
    dtype: str,
    num_tokens: int,
    tokens: BinaryIO,
    documents: BinaryIO,
) -> int:
    ends = []
    for chunk, ids in zip(batch, encoded, strict=True):
        tokens.write(np.asarray(ids, dtype=dtype).tobytes())
        num_tokens += len(ids)
        if chunk.ends_document:
            ends.append(num_tokens)
    documents.write(np.asarray(ends, dtype="<u8").tobytes())
    return num_tokens


class TokenizedText:
    """The sequences of a run: rows of `length` tokens, and `overlap` more that the next row starts with.

    The last `num_validation` sequences are for validation. Raises Failure if there is too little text.
    """

    def __init__(
        self,
        directory: Path,
        spec: TrainSpec,
        tokenizer: Tokenizer,
        length: int | None = None,
        overlap: int = 1,
    ) -> None:
        self.meta = read_meta(directory)
        self.length, self._overlap = spec.sequence_length if length is None else length, overlap
        self._seed = spec.seed
        num_sequences = (self.meta.num_tokens - overlap) // self.length
        min_sequences = 1 if spec.validation_fraction == 1 else 2
        if num_sequences < min_sequences:
            raise Failure("data_short", needed=min_sequences * self.length + overlap, found=self.meta.num_tokens)
        self.num_validation = max(1, int(num_sequences * spec.validation_fraction))
        self.num_train = num_sequences - self.num_validation
        self._tokens = np.memmap(directory / "tokens.bin", dtype=self.meta.dtype, mode="r")
        self._document_ends = np.memmap(directory / "documents.bin", dtype="<u8", mode="r")
        self._token_bytes = token_bytes(tokenizer)
        self.bytes_per_token = self.meta.num_bytes / self.meta.num_tokens

    def train_rows(self, first: int, count: int) -> Rows:
        """Training samples `first` to `first + count - 1` of the run, of shape (count, length + overlap)."""
        positions = np.arange(first, first + count, dtype=np.int64)
        return self._rows(sample_order.shuffled_index(positions, self.num_train, self._seed))

    def validation_rows(self, numbers: list[int]) -> Rows:
        """Validation sequences by number, of shape (len(numbers), length + overlap)."""
        return self._rows(np.asarray(numbers, dtype=np.int64) + self.num_train)

    def num_bytes(self, targets: Array) -> int:
        """The bytes of text that these token ids, of any shape, stand for."""
        return int(self._token_bytes[targets].sum())

    def validation_prompt(self, count: int) -> list[int]:
        """The first `count` tokens of the validation text, from the start of a document if one starts in it soon."""
        first = self.num_train * self.length
        document = int(np.searchsorted(self._document_ends, first, side="left"))
        end = int(self._document_ends[document]) if document < len(self._document_ends) else self.meta.num_tokens
        start = end if end - first < self.length and end + count < self.meta.num_tokens else first
        return [int(token) for token in self._tokens[start : start + count]]

    def documents_of(self, n: int) -> list[Document]:
        """The documents that training sample `n` of the run takes text from."""
        sequence = int(sample_order.shuffled_index(np.asarray([n], dtype=np.int64), self.num_train, self._seed)[0])
        start = sequence * self.length
        first = int(np.searchsorted(self._document_ends, start, side="right"))
        last = int(np.searchsorted(self._document_ends, start + self.length, side="right"))
        return [self._document(number) for number in range(first, last + 1)]

    def _document(self, number: int) -> Document:
        for corpus, count in enumerate(self.meta.num_documents):
            if number < count:
                return Document(corpus, number)
            number -= count
        raise AssertionError("document number out of range")

    def _rows(self, sequences: Ids) -> Rows:
        starts = sequences * self.length
        rows: Rows = self._tokens[starts[:, None] + np.arange(self.length + self._overlap)].astype(np.int64)
        return rows


def read_meta(directory: Path) -> TokenizedTextMeta:
    """Read `meta.json` of a directory of tokenized text."""
    return TokenizedTextMeta.model_validate_json((directory / "meta.json").read_text())
