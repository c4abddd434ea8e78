"""Tokenized text in memory-mapped files, cut into sequences that are a pure function of (seed, n). Imports no torch."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel
from tokenizers import Tokenizer

from trainer.batch_shapes import Document
from trainer.data import cache
from trainer.data.batch import Array
from trainer.data.corpus import CorpusReader, TextChunk, open_all
from trainer.data.fast_encoding import Encode, TokenIds, fast_encoder, is_exact, is_worthwhile
from trainer.data.process_pool import ProcessPool, num_processes
from trainer.data.record_refused import RecordRefused
from trainer.data.repeated_documents import TokenizedDocuments
from trainer.data.sample_order import order_samples
from trainer.data.splits import Split
from trainer.data.text_process import TextProcess
from trainer.data.tokenizer import Progress, token_bytes
from trainer.failure import Failure
from trainer.families import END_OF_TEXT
from trainer.rounding import ceil_div
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec

VERSION = 1  # increase when the same text and tokenizer would give different files
BATCH_BYTES = 4 << 20  # text tokenized at a time, over all threads
MAX_OPENING_TOKENS = 1_024  # in which the start of a sentence is looked for

# What stands before a sentence, in scripts with and without spaces, before a line and before a word, and whether a
# small letter may follow: after an abbreviation, or in a line that was wrapped, it starts nothing.
_LINE_BREAK = re.compile(r"\n\s*(?=\S)")
_STARTS = (
    (re.compile(r"[.!?…؟۔।][\"'”’»)\]]*\s+(?=\S)|[。！？][”’」』）]*\s*(?=\S)"), False),
    (_LINE_BREAK, False),
    (_LINE_BREAK, True),
    (re.compile(r"\s+(?=\S)"), True),
)

DocumentTokens = tuple[Sequence[int], int]  # the tokens before a document, and the one after it
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]  # shape (tokens,)
Rows = np.ndarray[tuple[int, int], np.dtype[np.int64]]  # shape (samples, tokens)


@dataclass(frozen=True)
class ChunkBatch:
    """Parts of documents that are all held out, or all not."""

    is_held_out: bool
    chunks: list[TextChunk]

    @property
    def texts(self) -> list[str]:
        """Their text."""
        return [chunk.text for chunk in self.chunks]


# Of batches: each with the tokens of its texts.
EncodeBatches = Callable[[Iterator[ChunkBatch]], Iterator[tuple[ChunkBatch, Sequence[TokenIds | RecordRefused]]]]


class TokenizedTextMeta(BaseModel):
    """`meta.json` of a directory of tokenized text."""

    sha256: str
    dtype: str
    num_tokens: int
    num_bytes: int
    num_documents: list[int]  # of each corpus
    # Of text whose split is by documents: those of the training side, which stand before the others. `numbers.bin` has
    # the number of each document in the order of the corpora.
    num_train_tokens: int | None = None


def tokenize_cached(
    sources: list[CorpusInput],
    tokenizer: Tokenizer,
    tokenizer_sha256: str,
    cache_path: Path,
    progress: Progress,
    end_of_text: int | None = None,
    start_ids: Sequence[int] = (),
    hostile: Path | None = None,
    split: Split | None = None,
) -> Path:
    """The directory with these corpora tokenized, created unless it is in the cache.

    `hostile` is the directory of the tokenizer unless it was trained here: a process with limits encodes then.
    `end_of_text` is the token id to write after each document; the default is that of tokenizers trained here.
    `start_ids` are written before each document. With a `split`, held-out documents are written last. Raises Failure
    if the corpora have no text, or text that takes the tokenizer too much time or memory.
    """
    start = {"start": list(start_ids)} if start_ids else {}
    corpora = [source.sha256 for source in sources]
    options = {**start, **({"held_out": split.sha256} if split is not None else {})}
    name = cache.cache_key(corpora=corpora, tokenizer=tokenizer_sha256, version=VERSION, **options)
    entry = cache_path / "tokens" / name
    end = tokenizer.token_to_id(END_OF_TEXT) if end_of_text is None else end_of_text
    assert end is not None, "tokenizer.load checks it"

    def create(path: Path) -> None:
        readers = open_all(sources)
        with _encoder(tokenizer, hostile, readers) as encode:
            tokenize(sources, readers, tokenizer, encode, (start_ids, end), name, path, progress, split)

    cache.get_or_create(entry, create, corpora, waiting=lambda: progress(0, 1))
    return entry


@contextmanager
def _encoder(tokenizer: Tokenizer, hostile: Path | None, corpora: list[CorpusReader]) -> Iterator[EncodeBatches]:
    is_large = is_worthwhile(corpora)
    if hostile is not None:
        num_batches = ceil_div(sum(corpus.num_bytes for corpus in corpora), BATCH_BYTES)
        with ProcessPool(partial(TextProcess, hostile), num_processes(num_batches)) as pool:
            is_fast = is_large and pool.call(lambda process: is_exact(process.fast, process.exact, corpora))
            way = TextProcess.fast_or_exact if is_fast else TextProcess.exact
            yield partial(pool.map, lambda process, batch: way(process, batch.texts))
        return

    def exact(texts: Sequence[str]) -> Iterator[TokenIds]:
        yield from (one.ids for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))

    encoder = fast_encoder(tokenizer) if is_large else None
    is_fast = encoder is not None and is_exact(partial(map, encoder), exact, corpora)
    encode: Encode = partial(map, encoder) if encoder is not None and is_fast else exact
    yield lambda batches: ((batch, list(encode(batch.texts))) for batch in batches)


def tokenize(
    sources: list[CorpusInput],
    corpora: list[CorpusReader],
    tokenizer: Tokenizer,
    encode: EncodeBatches,
    around: DocumentTokens,
    name: str,
    directory: Path,
    progress: Progress,
    split: Split | None = None,
) -> None:
    """Tokenize the corpora of the sources into a directory.

    Writes `tokens.bin` (ids, with the tokens `around` each document), `documents.bin` (the offset after each
    document, in tokens) and `meta.json`. Memory is bounded by BATCH_BYTES, however long a document is. Raises Failure
    at a text that is refused.
    """
    total = sum(corpus.num_bytes for corpus in corpora)
    dtype = "<u2" if tokenizer.get_vocab_size() <= 1 << 16 else "<u4"
    order = _document_order(corpora, split)
    done = num_tokens = 0
    num_train_tokens: int | None = None
    starts_document = True
    with (directory / "tokens.bin").open("wb") as tokens, (directory / "documents.bin").open("wb") as documents:
        for batch, encoded in encode(_batches(corpora, split)):
            if batch.is_held_out and num_train_tokens is None:
                num_train_tokens = num_tokens
            try:
                ids, ends = _join(batch.chunks, encoded, around, starts_document)
            except _TextRefused as refused:
                written = documents.tell() // 8 + refused.num_before
                raise _failure(refused, written if order is None else int(order[written]), sources, corpora) from None
            ids.astype(dtype).tofile(tokens)
            (ends + num_tokens).astype("<u8").tofile(documents)
            num_tokens += len(ids)
            starts_document = batch.chunks[-1].ends_document
            done += sum(chunk.num_bytes for chunk in batch.chunks)
            progress(done, total)
    if order is not None:
        num_train_tokens = num_tokens if num_train_tokens is None else num_train_tokens
        order.astype("<u8").tofile(directory / "numbers.bin")
    meta = TokenizedTextMeta(
        sha256=name,
        dtype=dtype,
        num_tokens=num_tokens,
        num_bytes=total,
        num_documents=[len(c) for c in corpora],
        num_train_tokens=num_train_tokens,
    )
    (directory / "meta.json").write_text(meta.model_dump_json())


class _TextRefused(Exception):
    """A chunk of text cannot be encoded: the number of documents that end before it in its batch, and the reason."""

    def __init__(self, num_before: int, why: RecordRefused) -> None:
        self.num_before, self.why = num_before, why


def _document_order(corpora: list[CorpusReader], split: Split | None) -> Ids | None:
    """The numbers of all documents, of shape (documents,), in the order in which they are written."""
    if split is None:
        return None
    assert len(split.is_held_out) == sum(map(len, corpora))
    return np.argsort(split.is_held_out, kind="stable")


def _failure(refused: _TextRefused, number: int, sources: list[CorpusInput], corpora: list[CorpusReader]) -> Failure:
    position = 0
    while position + 1 < len(corpora) and number >= len(corpora[position]):
        number -= len(corpora[position])
        position += 1
    return Failure("record_refused", corpus=sources[position].id, record=number + 1, why=refused.why.message)


def _batches(corpora: list[CorpusReader], split: Split | None) -> Iterator[ChunkBatch]:
    """All documents in parts, those of the training side first."""
    for is_held_out in (False,) if split is None else (False, True):
        batch: list[TextChunk] = []
        size = first = 0
        for corpus in corpora:
            sides = None if split is None else split.is_held_out[first : first + len(corpus)] == is_held_out
            first += len(corpus)
            for chunk in corpus.chunks(None if sides is None else sides.tolist()):
                batch.append(chunk)
                size += chunk.num_bytes + 64  # so that a million empty documents do not make one batch
                if size >= BATCH_BYTES:
                    yield ChunkBatch(is_held_out, batch)
                    batch, size = [], 0
        if batch:
            yield ChunkBatch(is_held_out, batch)


def _join(
    chunks: list[TextChunk],
    encoded: Sequence[TokenIds | RecordRefused],
    around: DocumentTokens,
    starts_document: bool,
) -> tuple[Array, Ids]:
    """The tokens of a batch, with those that start and end documents, and where documents end. Raises _TextRefused."""
    start, end = np.asarray(around[0], dtype=np.uint32), np.asarray([around[1]], dtype=np.uint32)
    parts: list[Array] = []
    ends: list[int] = []
    size = 0
    for chunk, ids in zip(chunks, encoded, strict=True):
        if isinstance(ids, RecordRefused):
            raise _TextRefused(len(ends), ids)
        parts.extend([start] if starts_document else [])
        parts.append(np.asarray(ids, dtype=np.uint32))
        size += len(ids) + (len(start) if starts_document else 0)
        if chunk.ends_document:
            parts.append(end)
            size += 1
            ends.append(size)
        starts_document = chunk.ends_document
    return np.concatenate(parts), np.asarray(ends, dtype=np.int64)


class TokenizedText:
    """The sequences of a run: rows of `length` tokens, and `overlap` more that the next row starts with.

    The last `num_validation` sequences are for validation, or those of the held-out documents of a split. Raises
    Failure if there is too little text.
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
        self.num_train, self.num_validation = self._count_sequences(spec)
        num_train_tokens = self.meta.num_train_tokens
        self._validation_start = self.num_train * self.length if num_train_tokens is None else num_train_tokens
        self._tokens = np.memmap(directory / "tokens.bin", dtype=self.meta.dtype, mode="r")
        self._document_ends = np.memmap(directory / "documents.bin", dtype="<u8", mode="r")
        self._token_bytes = token_bytes(tokenizer)
        self._numbers = None
        if num_train_tokens is not None:
            self._numbers = np.memmap(directory / "numbers.bin", dtype="<u8", mode="r")
        self.corpus_sizes = self._count_by_corpus()
        self.order = order_samples(spec, self.corpus_sizes)
        self.bytes_per_token = self.meta.num_bytes / self.meta.num_tokens

    def _count_sequences(self, spec: TrainSpec) -> tuple[int, int]:
        """The sequences of both sides. Raises Failure if one has none that needs some."""
        total, length, overlap = self.meta.num_tokens, self.length, self._overlap
        if self.meta.num_train_tokens is not None:
            num_tokens = self.meta.num_train_tokens, total - self.meta.num_train_tokens
            num_train, num_validation = (max(0, count - overlap) // length for count in num_tokens)
            if not num_train or not (num_validation or spec.validation_corpora):
                short = num_tokens[1] if num_train else num_tokens[0]
                raise Failure("data_short", needed=length + overlap, found=short)
            return num_train, num_validation
        num_sequences = (total - overlap) // length
        min_sequences = 1 if spec.validation_fraction in (0, 1) else 2
        if num_sequences < min_sequences:
            raise Failure("data_short", needed=min_sequences * length + overlap, found=total)
        if not spec.validation_fraction:
            return num_sequences, 0
        num_validation = max(1, int(num_sequences * spec.validation_fraction))
        return num_sequences - num_validation, num_validation

    def _count_by_corpus(self) -> list[int]:
        """The training sequences that start in the text of each corpus."""
        ends = np.cumsum(self.meta.num_documents)  # in documents
        if self._numbers is not None:
            count = int(np.searchsorted(self._document_ends, self._validation_start, side="right"))
            ends = np.searchsorted(self._numbers[:count], ends)
        token_ends = [int(self._document_ends[end - 1]) if end else 0 for end in ends[:-1].tolist()]
        firsts = [0, *(min(ceil_div(end, self.length), self.num_train) for end in token_ends), self.num_train]
        return np.diff(firsts).tolist()

    def train_rows(self, first: int, count: int) -> Rows:
        """Training samples `first` to `first + count - 1` of the run, of shape (count, length + overlap)."""
        positions = np.arange(first, first + count, dtype=np.int64)
        return self._rows(self.order.samples(positions))

    def validation_rows(self, numbers: list[int]) -> Rows:
        """Validation sequences by number, of shape (len(numbers), length + overlap)."""
        return self._rows(np.asarray(numbers, dtype=np.int64), self._validation_start)

    def num_bytes(self, targets: Array) -> int:
        """The bytes of text that these token ids, of any shape, stand for."""
        return int(self._token_bytes[targets].sum())

    def validation_prompt(self, count: int) -> list[int]:
        """The first `count` tokens of the validation text, from the start of a document if one starts in it soon."""
        start, _end = self._prompt_place(count)
        return self._ids(start, start + count)

    def validation_opening(self, tokenizer: Tokenizer, count: int) -> str:
        """Some `count` tokens of the validation text from where a document, else a sentence, line or word starts."""
        start, end = self._prompt_place(count)
        if start in (0, end):
            return str(tokenizer.decode(self._ids(start, start + count)))
        ids = self._ids(start, min(end, start + MAX_OPENING_TOKENS))
        cut = text_start(str(tokenizer.decode(ids[:-count])))
        before = bisect_left(range(len(ids)), cut, key=lambda n: len(tokenizer.decode(ids[:n])))
        return str(tokenizer.decode(ids[: before + count]))[cut:].rstrip("\ufffd")  # half a character at the end

    def _prompt_place(self, count: int) -> tuple[int, int]:
        """Where the prompt from the validation text starts, in tokens, and where the document before or around it
        ends.
        """
        first = self._validation_start
        document = int(np.searchsorted(self._document_ends, first, side="left"))
        end = int(self._document_ends[document]) if document < len(self._document_ends) else self.meta.num_tokens
        start = end if end - first < self.length and end + count < self.meta.num_tokens else first
        return start, end

    def _ids(self, start: int, end: int) -> list[int]:
        return [int(token) for token in self._tokens[start:end]]

    def documents_of(self, n: int) -> list[Document]:
        """The documents that training sample `n` of the run takes text from."""
        sequence = int(self.order.samples(np.asarray([n], dtype=np.int64))[0])
        start = sequence * self.length
        first = int(np.searchsorted(self._document_ends, start, side="right"))
        last = int(np.searchsorted(self._document_ends, start + self.length, side="right"))
        return [self._document(number) for number in range(first, last + 1)]

    @property
    def train_documents(self) -> TokenizedDocuments:
        """The documents that begin in the sequences for training."""
        return self._documents_in(0, self.num_train)

    @property
    def validation_documents(self) -> TokenizedDocuments:
        """The documents that begin in the sequences for validation."""
        return self._documents_in(self._validation_start, self.num_validation)

    def _documents_in(self, start: int, num_sequences: int) -> TokenizedDocuments:
        bounds = np.concatenate([np.zeros(1, dtype=np.uint64), self._document_ends])
        first, last = np.searchsorted(bounds[:-1], [start, start + num_sequences * self.length])
        return TokenizedDocuments(self._tokens, bounds[first : last + 1])

    def _document(self, number: int) -> Document:
        if self._numbers is not None:
            number = int(self._numbers[number])
        for corpus, count in enumerate(self.meta.num_documents):
            if number < count:
                return Document(corpus, number)
            number -= count
        raise AssertionError("document number out of range")

    def _rows(self, sequences: Ids, first: int = 0) -> Rows:
        starts = first + sequences * self.length
        rows: Rows = self._tokens[starts[:, None] + np.arange(self.length + self._overlap)].astype(np.int64)
        return rows


def text_start(text: str) -> int:
    """Where a text that begins anywhere is best cut at its left, in characters: where the first sentence starts, else
    the first line, else the first word; 0 without any.
    """
    for pattern, may_be_lower in _STARTS:
        for match in pattern.finditer(text):
            if may_be_lower or not text[match.end()].islower():
                return match.end()
    return 0


def read_meta(directory: Path) -> TokenizedTextMeta:
    """Read `meta.json` of a directory of tokenized text."""
    return TokenizedTextMeta.model_validate_json((directory / "meta.json").read_text())
