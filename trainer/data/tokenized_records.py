"""Tokenized records in memory-mapped files, their split into training and validation, and packing. Imports no torch."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
from pydantic import BaseModel
from transformers import PreTrainedTokenizerFast

from trainer.batch_shapes import Document
from trainer.data import cache, sample_order
from trainer.data.batch import Array
from trainer.data.chat_template import default_template
from trainer.data.corpus import CorpusReader, open_all
from trainer.data.process_pool import ProcessPool, num_processes
from trainer.data.record_encoding import Segment
from trainer.data.record_refused import RecordRefused
from trainer.data.splits import Split
from trainer.data.tokenized_text import Ids
from trainer.data.tokenizer import Progress, end_ids, save_pretrained, token_bytes
from trainer.data.tokenizer_process import TokenizerProcess
from trainer.events import RemarkKind
from trainer.failure import Failure
from trainer.formats.messages import Message, message
from trainer.planning.counts import num_held_out
from trainer.rounding import ceil_div
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec

# By objective, 2 elsewhere: another where the same records give other files.
VERSIONS = {"classification": 3, "chat": 3, "dpo": 3}
HELD_OUT_FILE = "held_out.bin"  # of a split by documents
FILES = ("ids", "weights", "ends", "cut", "labels", "numbers")
INTEGER = re.compile(r"-?\d{1,18}")
BATCH_BYTES = 256 << 10  # of records that a process encodes at a time
BYTES_OF_A_PROCESS = 1 << 20  # of records, for which starting another process saves time
MAX_REMARKS = 20  # records named of each kind of remark
SPLIT = 0x5EED  # mixed into the seed, so that the validation split is independent of the training order


MESSAGES = {
    "cut": "it has {num_tokens} tokens and was cut to {length}",
    "empty": "nothing to learn is left of it within {length} tokens",
    "equal": "its two answers do not differ within {length} tokens",
}


class TokenizedRemark(BaseModel):
    """Why a record was left out or cut: the position of its corpus, and its number there from 1."""

    corpus: int
    record: int
    kind: RemarkKind
    why: Message


class TokenizedRecordsMeta(BaseModel):
    """`meta.json` of a directory of tokenized records."""

    sha256: str
    dtype: str
    num_segments: int  # per record
    num_records: list[int]  # of each corpus, without dropped ones
    num_tokens: int
    num_bytes: int  # of the text that the tokens stand for
    num_cut: int  # records truncated to the sequence length
    num_dropped: int  # records without a token to learn from, or that cannot be encoded
    num_equal: int = 0  # of these, pairs of answers that do not differ within the sequence length
    num_refused: int = 0  # of these, records that cannot be encoded
    remarks: list[TokenizedRemark] = []  # on the first records of each kind
    labels: list[str]  # class names, in label_order


def tokenize_cached(
    sources: list[CorpusInput],
    spec: TrainSpec,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_sha256: str,
    cache_path: Path,
    progress: Progress,
    labels: Sequence[str] | None = None,
    split: Split | None = None,
) -> Path:
    """The directory with these corpora tokenized for an objective, created unless it is in the cache.

    With a `split`, it says of each record whether it is held out. `labels` are the class names if they are fixed: a
    validation corpus has those of the training corpora. Raises Failure if the corpora have no text, no usable record,
    an unknown label, or records of one class only, or if the spec says to stop at a record that cannot be encoded and
    there is one.
    """
    corpora = [source.sha256 for source in sources]
    name = cache.cache_key(
        corpora=corpora,
        tokenizer=tokenizer_sha256,
        template=hashlib.sha256((default_template(tokenizer) or "").encode()).hexdigest(),
        on_record_error=spec.on_record_error,
        objective=spec.objective,
        sequence_length=spec.sequence_length,
        labels=labels,
        version=VERSIONS.get(spec.objective, 2),
        **({"held_out": split.sha256} if split is not None else {}),
    )
    entry = cache_path / "records" / name

    def create(path: Path) -> None:
        _write(path, spec, tokenizer, labels, (sources, name, progress))
        if split is not None:
            _write_sides(path, split, sources)

    cache.get_or_create(entry, create, corpora, waiting=lambda: progress(0, 1))
    return entry


def _write_sides(directory: Path, split: Split, sources: list[CorpusInput]) -> None:
    """Write `held_out.bin`: a byte for each record that was written, 1 if it is held out."""
    meta = TokenizedRecordsMeta.model_validate_json((directory / "meta.json").read_text())
    numbers = np.fromfile(directory / "numbers.bin", dtype="<u8").astype(np.int64)
    firsts = np.cumsum([0, *(len(CorpusReader(source)) for source in sources)])[:-1]
    numbers += np.repeat(firsts, meta.num_records)
    split.is_held_out[numbers].astype("u1").tofile(directory / HELD_OUT_FILE)


def _write(
    directory: Path,
    spec: TrainSpec,
    tokenizer: PreTrainedTokenizerFast,
    labels: Sequence[str] | None,
    work: tuple[list[CorpusInput], str, Progress],
) -> None:
    sources, name, progress = work
    with ExitStack() as resources:
        path = Path(resources.enter_context(TemporaryDirectory(prefix="tokenizer-")))
        save_pretrained(tokenizer, path)
        num_bytes = sum(CorpusReader(source).num_bytes for source in sources)
        count = num_processes(ceil_div(num_bytes, BYTES_OF_A_PROCESS))
        pool = resources.enter_context(ProcessPool(partial(TokenizerProcess, path), count))
        _Writer(directory, spec, tokenizer, labels, pool).write(sources, name, progress)


def _batches(corpus: CorpusReader) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for record in corpus.texts():
        batch.append(record)
        size += len(record)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Writer:
    """Writes a file each for ids, weights, ends of segments, tokens cut off of them, classes and record numbers, and
    `meta.json`.
    """

    def __init__(
        self,
        directory: Path,
        spec: TrainSpec,
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str] | None,
        pool: ProcessPool[TokenizerProcess],
    ) -> None:
        self._directory, self._spec, self._labels = directory, spec, labels
        self._corpora: list[str] = []  # their IDs
        self._pool = pool
        self._dtype = "<u2" if len(tokenizer) <= 1 << 16 else "<u4"
        self._files: dict[str, BinaryIO] = {name: (directory / f"{name}.bin").open("wb") for name in FILES}
        # Segments read as a whole keep the token that ends them. In causal ones, one more token fits, as a label only.
        is_whole = spec.objective in ("classification", "seq2seq")
        self._keeps_end = spec.objective == "seq2seq" or (is_whole and bool(end_ids(tokenizer)))
        self._max_tokens = spec.sequence_length + (0 if is_whole else 1)
        # Only a classifier can learn from a single token.
        self._first_learned = 0 if spec.objective == "classification" else 1
        self._token_bytes = token_bytes(tokenizer.backend_tokenizer)
        self._num_segments = self._num_tokens = self._num_bytes = 0
        self._classes: list[str] = []
        self._remarks: list[TokenizedRemark] = []
        self._num_remarks: Counter[RemarkKind] = Counter()

    def write(self, sources: list[CorpusInput], name: str, progress: Progress) -> None:
        """Write all records of all corpora. Raises Failure as `tokenize_cached` does."""
        corpora = open_all(sources)
        total = sum(corpus.num_bytes for corpus in corpora)
        done, counts = 0, []
        self._corpora = [source.id for source in sources]
        for position, corpus in enumerate(corpora):
            num_written = 0
            encoded = self._pool.map(self._encode, _batches(corpus))
            records = chain.from_iterable(zip(batch, answers, strict=True) for batch, answers in encoded)
            for number, (text, segments) in enumerate(records):
                num_written += self._write_record(position, number, text, segments)
                done += len(text.encode())
                progress(done, total)
            counts.append(num_written)
        labels = self._write_labels()
        for file in self._files.values():
            file.close()
        if not sum(counts):
            raise self._nothing_left()
        meta = TokenizedRecordsMeta(
            sha256=name,
            dtype=self._dtype,
            num_segments=self._num_segments,
            num_records=counts,
            num_tokens=self._num_tokens,
            num_bytes=self._num_bytes,
            num_cut=self._num_remarks["cut"],
            num_dropped=self._num_dropped,
            num_equal=self._num_remarks["equal"],
            num_refused=self._num_remarks["refused"],
            remarks=self._remarks,
            labels=labels,
        )
        (self._directory / "meta.json").write_text(meta.model_dump_json())

    def _encode(self, process: TokenizerProcess, records: list[str]) -> list[list[Segment] | RecordRefused]:
        return list(process.segments(self._spec.objective, records))

    def _write_record(self, corpus: int, number: int, text: str, encoded: list[Segment] | RecordRefused) -> bool:
        """Write one record unless it must be dropped. Returns whether it was written."""
        length = self._spec.sequence_length
        if isinstance(encoded, RecordRefused):
            self._remark(corpus, number, "refused", encoded.message)
            return False
        segments = [segment.cut(self._max_tokens, keeps_end=self._keeps_end) for segment in encoded]
        if not all(any(segment.weights[self._first_learned :]) for segment in segments):
            self._remark(corpus, number, "empty", message(MESSAGES, "empty", length=length))
            return False
        if self._spec.objective == "dpo" and segments[0] == segments[1]:
            self._remark(corpus, number, "equal", message(MESSAGES, "equal", length=length))
            return False
        if segments != encoded:
            num_tokens = max(len(segment.ids) for segment in encoded)
            self._remark(corpus, number, "cut", message(MESSAGES, "cut", num_tokens=num_tokens, length=length))
        self._num_segments = len(segments)
        for segment, complete in zip(segments, encoded, strict=True):
            self._write_segment(segment, len(complete.ids) - len(segment.ids))
        if self._spec.objective == "classification":
            self._classes.append(str(json.loads(text).get("label", "")))
        self._files["numbers"].write(np.asarray([number], dtype="<u8").tobytes())
        return True

    def _remark(self, corpus: int, number: int, kind: RemarkKind, why: Message) -> None:
        """Count a remark. Raises Failure for a record that cannot be encoded if the spec says to stop at it."""
        remark = TokenizedRemark(corpus=corpus, record=number + 1, kind=kind, why=why)
        if kind == "refused" and self._spec.on_record_error == "stop":
            raise Failure("record_refused", **self._named(remark))
        if self._num_remarks[kind] < MAX_REMARKS:
            self._remarks.append(remark)
        self._num_remarks[kind] += 1

    @property
    def _num_dropped(self) -> int:
        """Records that were left out."""
        return self._num_remarks.total() - self._num_remarks["cut"]

    def _nothing_left(self) -> Failure:
        """The failure of corpora all of whose records were left out."""
        if self._num_remarks["equal"]:
            return Failure("answers_equal", count=self._num_remarks["equal"], length=self._spec.sequence_length)
        refused = next((remark for remark in self._remarks if remark.kind == "refused"), None)
        if refused is not None:
            return Failure("records_refused", dropped=self._num_dropped, **self._named(refused))
        return Failure("records_empty", dropped=self._num_dropped)

    def _named(self, remark: TokenizedRemark) -> dict[str, Any]:
        """The values of a message on one record."""
        return {"corpus": self._corpora[remark.corpus], "record": remark.record, "why": remark.why}

    def _write_segment(self, segment: Segment, num_cut: int) -> None:
        self._files["ids"].write(np.asarray(segment.ids, dtype=self._dtype).tobytes())
        self._files["weights"].write(np.asarray(segment.weights, dtype="<f4").tobytes())
        self._num_bytes += int(self._token_bytes[segment.ids].sum())
        self._num_tokens += len(segment.ids)
        self._files["ends"].write(np.asarray([self._num_tokens], dtype="<u8").tobytes())
        self._files["cut"].write(np.asarray([num_cut], dtype="<u4").tobytes())

    def _write_labels(self) -> list[str]:
        """Write the class index of each record. Returns the class names; raises Failure for one only, or an unknown."""
        if self._spec.objective != "classification":
            return []
        names = label_order(self._classes) if self._labels is None else list(self._labels)
        if len(names) == 1:
            raise Failure("labels_one", label=names[0])
        unknown = next((name for name in self._classes if name not in names), None)
        if unknown is not None:
            raise Failure("label_unknown", label=unknown, labels=", ".join(names))
        index = {name: number for number, name in enumerate(names)}
        self._files["labels"].write(np.asarray([index[name] for name in self._classes], dtype="<i4").tobytes())
        return names


def label_order(labels: Iterable[str]) -> list[str]:
    """Class names without repetition: numbers by size, others by their characters."""
    names = set(labels)
    if all(INTEGER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


class TokenizedRecords:
    """The tokenized records of a run, split into `train` and `validation`, arrays of record numbers.

    Of records with classes, each class with more than one record is split by itself, so that a rare one is validated
    too. A split by documents has decided before. Nothing is held out of a single record if the spec names validation
    corpora.

    Each record has `meta.num_segments` segments. `labels` are class indices by record, of shape (records,). Raises
    Failure if there are too few records.
    """

    def __init__(self, directory: Path, spec: TrainSpec) -> None:
        self.meta = TokenizedRecordsMeta.model_validate_json((directory / "meta.json").read_text())
        self._ids = _open(directory / "ids.bin", self.meta.dtype)
        self._weights = _open(directory / "weights.bin", "<f4")
        ends = np.fromfile(directory / "ends.bin", dtype="<u8").astype(np.int64)
        self._bounds = np.concatenate([np.zeros(1, dtype=np.int64), ends])
        self._numbers = np.fromfile(directory / "numbers.bin", dtype="<u8")
        cut = directory / "cut.bin"  # entries of earlier versions have none
        self._cut = _open(cut, "<u4") if cut.exists() else np.zeros(len(ends), dtype="<u4")
        self.labels = np.fromfile(directory / "labels.bin", dtype="<i4").astype(np.int64)
        count = sum(self.meta.num_records)
        shuffled = sample_order.shuffled_index(np.arange(count, dtype=np.int64), count, spec.seed ^ SPLIT)
        if count < 2 and spec.validation_fraction < 1 and not spec.validation_corpora:
            raise Failure("records_few", found=count, dropped=self.meta.num_dropped)
        is_held_out = np.zeros(count, dtype=bool)
        if (directory / HELD_OUT_FILE).exists():
            is_held_out = np.fromfile(directory / HELD_OUT_FILE, dtype="u1").astype(bool)
            if is_held_out.all() or not (is_held_out.any() or spec.validation_corpora):
                raise Failure("split_empty", held_out=int(is_held_out.sum()), documents=count)
        else:
            for group in self._split_by_class(shuffled):
                is_held_out[group[: num_held_out(len(group), spec.validation_fraction)]] = True
            if spec.validation_fraction and count > 1 and not is_held_out.any():  # every class has one record
                is_held_out[shuffled[0]] = True
        self.validation: Ids = np.flatnonzero(is_held_out)
        self.train: Ids = np.flatnonzero(~is_held_out)

    def _split_by_class(self, records: Ids) -> list[Ids]:
        """These record numbers, one array for each class; a single array for records without classes."""
        if not self.meta.labels:
            return [records]
        classes = self.labels[records]
        return [records[classes == number] for number in range(len(self.meta.labels))]

    @property
    def unvalidated_labels(self) -> list[str]:
        """The class names of which no record is held out."""
        held_out = set(self.labels[self.validation].tolist()) if self.meta.labels else set()
        return [name for number, name in enumerate(self.meta.labels) if number not in held_out]

    def fingerprint(self, record: int) -> bytes:
        """A hash of a record's tokens; equal records have equal ones."""
        return hashlib.blake2b(b"|".join(ids.tobytes() for ids, _weights in self.segments(record))).digest()

    def segments(self, record: int) -> list[tuple[Array, Array]]:
        """Ids and weights of each segment of a record, two arrays of shape (tokens,) each."""
        first = record * self.meta.num_segments
        return [self._segment(first + number) for number in range(self.meta.num_segments)]

    def _segment(self, number: int) -> tuple[Array, Array]:
        start, end = self._bounds[number], self._bounds[number + 1]
        return self._ids[start:end].astype(np.int64), np.asarray(self._weights[start:end])

    def num_cut_tokens(self, record: int) -> list[int]:
        """How many tokens were cut off at the end of each segment of a record."""
        first = record * self.meta.num_segments
        return [int(count) for count in self._cut[first : first + self.meta.num_segments]]

    def lengths(self, records: Ids) -> Ids:
        """Token counts of the first segment of these records, of shape (records,)."""
        firsts = records * self.meta.num_segments
        counts: Ids = self._bounds[firsts + 1] - self._bounds[firsts]
        return counts

    def count_by_corpus(self, records: Ids) -> list[int]:
        """How many of these records each corpus has."""
        counts = np.bincount(self._corpora_of(records), minlength=len(self.meta.num_records))
        return [int(count) for count in counts]

    def tokens_by_corpus(self, records: Ids) -> list[int]:
        """The tokens that these records have in each corpus, in all of their segments."""
        count = self.meta.num_segments
        lengths = self._bounds[(records + 1) * count] - self._bounds[records * count]
        sums = np.bincount(self._corpora_of(records), weights=lengths, minlength=len(self.meta.num_records))
        return [int(tokens) for tokens in sums]

    def _corpora_of(self, records: Ids) -> Ids:
        return np.searchsorted(np.cumsum(self.meta.num_records), records, side="right")

    def split_by_corpus(self, records: Ids) -> list[Ids]:
        """These record numbers, one array for each corpus."""
        corpora = self._corpora_of(records)
        return [records[corpora == corpus] for corpus in range(len(self.meta.num_records))]

    def document_of(self, record: int) -> Document:
        """The corpus of a record and its number in that corpus."""
        number = int(self._numbers[record])
        for corpus, count in enumerate(self.meta.num_records):
            if record < count:
                return Document(corpus, number)
            record -= count
        raise AssertionError("record number out of range")


def _open(path: Path, dtype: str) -> Array:
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)
