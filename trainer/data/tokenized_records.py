"""Tokenised records: made once into memory-mapped files, split, packed. Imports transformers, not torch."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel
from transformers import PreTrainedTokenizerFast

from trainer.data import cache, sample_order
from trainer.data.batch import Array
from trainer.data.corpus import open_all
from trainer.data.record_encoding import RecordEncoder, Segment, SpecialTokenInText
from trainer.data.tokenized_text import Document, Ids
from trainer.data.tokenizer import Progress
from trainer.failure import Failure
from trainer.run_dir import CorpusInput
from trainer.spec import TrainSpec

VERSION = 1  # raise it when the same records and settings would give other files
FILES = ("ids", "weights", "ends", "labels", "numbers")
SPLIT = 0x5EED  # which records are held out changes with the seed, but not with the order of training


class Meta(BaseModel):
    """What lies in a directory of tokenised records (`meta.json`)."""

    sha256: str
    dtype: str
    num_segments: int  # of each record
    num_records: list[int]  # of each corpus, as far as they are kept
    num_tokens: int
    num_bytes: int
    num_cut: int  # records longer than a sequence, whose end is missing
    num_dropped: int  # records without a token to learn, or whose text spells a special token
    labels: list[str]  # the classes, sorted


def tokenize_cached(
    sources: list[CorpusInput],
    spec: TrainSpec,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_sha256: str,
    cache_path: Path,
    progress: Progress,
    labels: Sequence[str] | None = None,
) -> Path:
    """The directory with these corpora tokenised for an objective, made now unless the cache has it.

    `labels` are the classes where they are known already: a held-out corpus has those that are trained on.
    """
    name = cache.cache_key(
        corpora=[source.sha256 for source in sources],
        tokenizer=tokenizer_sha256,
        template=hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest(),
        objective=spec.objective,
        sequence_length=spec.sequence_length,
        labels=labels,
        version=VERSION,
    )
    entry = cache_path / "records" / name
    cache.get_or_create(entry, lambda made: _Writer(made, spec, tokenizer, labels).write(sources, name, progress))
    return entry


class _Writer:
    """Writes, of all records, ids, weights and where each segment ends; of each its class and its own number."""

    def __init__(
        self, directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str] | None
    ) -> None:
        self._directory, self._spec, self._labels = directory, spec, labels
        self._encoder = RecordEncoder(spec.objective, tokenizer)
        self._dtype = "<u2" if len(tokenizer) <= 1 << 16 else "<u4"
        self._files: dict[str, BinaryIO] = {name: (directory / f"{name}.bin").open("wb") for name in FILES}
        # What is read whole ends as it should; of what predicts itself, the last token is only a label.
        self._keeps_end = spec.objective in ("classification", "seq2seq")
        self._room = spec.sequence_length + (0 if self._keeps_end else 1)
        self._num_segments = self._num_tokens = self._num_cut = self._num_dropped = 0
        self._classes: list[str] = []

    def write(self, sources: list[CorpusInput], name: str, progress: Progress) -> None:
        """All records of all corpora. Raises Failure where none has anything to learn."""
        corpora = open_all(sources)
        total = sum(corpus.num_bytes for corpus in corpora)
        done, counts = 0, []
        for corpus in corpora:
            kept = 0
            for number, text in enumerate(corpus.texts()):
                kept += self._record(number, text)
                done += len(text.encode())
                progress(done, total)
            counts.append(kept)
        labels = self._write_labels()
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if not sum(counts):
            raise Failure("records_empty", dropped=self._num_dropped)
        meta = Meta(
            sha256=name,
            dtype=self._dtype,
            num_segments=self._num_segments,
            num_records=counts,
            num_tokens=self._num_tokens,
            num_bytes=total,
            num_cut=self._num_cut,
            num_dropped=self._num_dropped,
            labels=labels,
        )
        (self._directory / "meta.json").write_text(meta.model_dump_json())

    def _record(self, number: int, text: str) -> bool:
        """Write one record, and say whether it was kept."""
        record = json.loads(text)
        try:
            whole = self._encoder.segments(record)
        except SpecialTokenInText:
            self._num_dropped += 1
            return False
        segments = [segment.cut(self._room, keeps_end=self._keeps_end) for segment in whole]
        if not all(len(segment.ids) > 1 and any(segment.weights[1:]) for segment in segments):
            self._num_dropped += 1
            return False
        self._num_cut += segments != whole
        self._num_segments = len(segments)
        for segment in segments:
            self._segment(segment)
        self._classes.append(str(record.get("label", "")))
        self._files["numbers"].write(np.asarray([number], dtype="<u8").tobytes())
        return True

    def _segment(self, segment: Segment) -> None:
        self._files["ids"].write(np.asarray(segment.ids, dtype=self._dtype).tobytes())
        self._files["weights"].write(np.asarray(segment.weights, dtype="<f4").tobytes())
        self._num_tokens += len(segment.ids)
        self._files["ends"].write(np.asarray([self._num_tokens], dtype="<u8").tobytes())

    def _write_labels(self) -> list[str]:
        """Number the classes, and return their names."""
        if self._spec.objective != "classification":
            return []
        names = sorted(set(self._classes)) if self._labels is None else list(self._labels)
        unknown = next((name for name in self._classes if name not in names), None)
        if unknown is not None:
            raise Failure("label_unknown", label=unknown, labels=", ".join(names))
        places = {name: place for place, name in enumerate(names)}
        self._files["labels"].write(np.asarray([places[name] for name in self._classes], dtype="<i4").tobytes())
        return names


class TokenizedRecords:
    """The tokenised records of a run, each with `num_segments` segments, and which of them are held out."""

    def __init__(self, directory: Path, spec: TrainSpec) -> None:
        self.meta = Meta.model_validate_json((directory / "meta.json").read_text())
        self._ids = _open(directory / "ids.bin", self.meta.dtype)
        self._weights = _open(directory / "weights.bin", "<f4")
        ends = np.fromfile(directory / "ends.bin", dtype="<u8").astype(np.int64)
        self._bounds = np.concatenate([np.zeros(1, dtype=np.int64), ends])
        self._numbers = np.fromfile(directory / "numbers.bin", dtype="<u8")
        self.labels = np.fromfile(directory / "labels.bin", dtype="<i4").astype(np.int64)
        count = sum(self.meta.num_records)
        shuffled = sample_order.shuffled_index(np.arange(count, dtype=np.int64), count, spec.seed ^ SPLIT)
        if count < 2 and spec.validation_fraction < 1:
            raise Failure("records_few", found=count, dropped=self.meta.num_dropped)
        num_held_out = max(1, int(count * spec.validation_fraction))
        self.validation: Ids = np.sort(shuffled[:num_held_out])
        self.train: Ids = np.sort(shuffled[num_held_out:])

    def segments(self, record: int) -> list[tuple[Array, Array]]:
        """Ids and weights of each segment of a record."""
        first = record * self.meta.num_segments
        return [self._segment(first + number) for number in range(self.meta.num_segments)]

    def _segment(self, number: int) -> tuple[Array, Array]:
        start, end = self._bounds[number], self._bounds[number + 1]
        return self._ids[start:end].astype(np.int64), np.asarray(self._weights[start:end])

    def lengths(self, records: Ids) -> Ids:
        """How many tokens each of these records has in its first segment."""
        firsts = records * self.meta.num_segments
        found: Ids = self._bounds[firsts + 1] - self._bounds[firsts]
        return found

    def document_of(self, record: int) -> Document:
        """Where a record comes from."""
        number = int(self._numbers[record])
        for corpus, count in enumerate(self.meta.num_records):
            if record < count:
                return Document(corpus, number)
            record -= count
        raise AssertionError("a record behind the last one")


def _open(path: Path, dtype: str) -> Array:
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)


def pack_best_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Put things of these lengths, each at most `room`, into as few boxes as may be: each into the fullest that takes
    it, longest first (best-fit decreasing). Returns the numbers of the things in each box.
    """
    boxes: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # open boxes by the space they have left
    spaces = 0  # which of these there are, as bits
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[number]
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            box = by_space[space].pop()
            if not by_space[space]:
                spaces &= ~(1 << space)
        else:
            space, box = room, len(boxes)
            boxes.append([])
        boxes[box].append(number)
        left = space - length
        if left:
            by_space.setdefault(left, []).append(box)
            spaces |= 1 << left
    return boxes
