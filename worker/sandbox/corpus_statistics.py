"""The sandboxed child that counts duplicates of a parsed corpus, and what a tokenizer makes of its text.

`python -m worker.sandbox.corpus_statistics DIRECTORY --kind=KIND --memory=BYTES [--tokenizer=FILE]`

Duplicates are counted over all documents, near ones over the first, languages over MAX_IDENTIFIED documents at even
distances. Tokens are counted over a sample of a large corpus: every n-th document from the first on, so that about
SAMPLE_BYTES of text are read. The tokens of a record are those of its texts, without the marks that a chat template
adds.
"""

import argparse
import codecs
import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rensa import RMinHashDeduplicator
from tokenizers import Tokenizer

from trainer.data.corpus import CorpusReader, split_document, strings
from trainer.data.splits import Hashes, count_repeated, hold_out, read_groups, read_labels
from trainer.failure import Failure
from trainer.rounding import ceil_div
from trainer.run_dir import CorpusInput
from worker.sandbox.cleaning.documents import read_documents
from worker.sandbox.cleaning.duplicates import NUM_BANDS, NUM_PERMUTATIONS, SEED, batches, signed
from worker.sandbox.cleaning.languages import IDENTIFIED_CHARACTERS, LanguageIdentifier
from worker.sandbox.reporting import ProgressReporter, report

SAMPLE_BYTES = 32 << 20
MAX_SAMPLE_BYTES = 2 * SAMPLE_BYTES  # where the sampled documents are longer than the others
BATCH_BYTES = 1 << 20  # of text that is tokenized at a time
BATCH_DOCUMENTS = 1_000
# Sequence lengths at which the cut is counted: two in each power of two, from 8 to 131,072 tokens.
CUT_LENGTHS = [length for bits in range(3, 18) for length in (2**bits, 3 * 2 ** (bits - 1))][:-1]
FRACTIONS = (0.01, 0.05, 0.1, 0.2)  # at which splits are previewed
COMPARED_BYTES = 64 << 20  # of text in which near duplicates are counted
MAX_COMPARED = 100_000  # documents, whose signatures take 2.3 KB each
NEAR_SIMILARITY = 0.8
MAX_IDENTIFIED = 1_000  # documents whose language is told, at a millisecond or more each
MAX_IDENTIFIED_BYTES = 1 << 20  # of a record; larger ones are left out
NUM_LANGUAGES = 20
NUM_FREQUENT = 50
NUM_LONGEST = 10
NUM_REPEATED = 10
PREVIEW_CHARACTERS = 160


class ParsedCorpus:
    """The documents of a parsed corpus on disk."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.kind = kind
        self.ends = np.fromfile(directory / "index.bin", dtype="<u8").astype(np.int64)
        self._file = (directory / "text.bin").open("rb")
        self.num_bytes = int(self.ends[-1]) if len(self.ends) else 0

    def __len__(self) -> int:
        return len(self.ends)

    def lengths(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """The bytes of each document, of shape (documents,)."""
        return np.diff(self.ends, prepend=0)

    def bounds(self, number: int) -> tuple[int, int]:
        """Where a document begins and ends, in bytes."""
        return int(self.ends[number - 1]) if number else 0, int(self.ends[number])

    def read(self, start: int, end: int) -> bytes:
        """Bytes of the text."""
        return os.pread(self._file.fileno(), end - start, start)

    def preview(self, number: int) -> str:
        """The beginning of a document."""
        start, end = self.bounds(number)
        data = self.read(start, min(end, start + 4 * PREVIEW_CHARACTERS))
        return codecs.utf_8_decode(data, "ignore", False)[0][:PREVIEW_CHARACTERS]

    def describe(self, number: int, **more: int) -> dict[str, Any]:
        """A document as it is listed."""
        start, end = self.bounds(number)
        return {"index": number, "num_bytes": end - start, **more, "text": self.preview(number)}


def hash_texts(corpus: ParsedCorpus, source: CorpusInput, progress: Callable[[int], None]) -> Hashes:
    """The hash of each document, as the trainer splits by it."""
    hashes = np.empty(len(corpus), dtype=np.uint64)
    for number, value in enumerate(CorpusReader(source).hashes()):
        hashes[number] = value
        progress(int(corpus.ends[number]))
    return hashes


def count_duplicates(corpus: ParsedCorpus, hashes: Hashes) -> dict[str, Any]:
    """Documents whose text occurs before, byte by byte, and the texts that occur most often."""
    _texts, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    repeated = np.flatnonzero(counts > 1)
    order = repeated[np.lexsort((first[repeated], -counts[repeated]))][:NUM_REPEATED]
    return {
        "num_duplicates": int(len(hashes) - len(counts)),
        "num_repeated": len(repeated),
        "repeated": [corpus.describe(int(first[n]), count=int(counts[n])) for n in order],
    }


def count_near_duplicates(corpus: ParsedCorpus, directory: Path, hashes: Hashes) -> dict[str, int]:
    """Documents that are almost an earlier one (MinHash of word 5-grams), besides those with its very text, among the
    first COMPARED_BYTES of text.
    """
    compared = islice(read_documents(directory, corpus.kind, lambda done: None, max_bytes=COMPARED_BYTES), MAX_COMPARED)
    index = RMinHashDeduplicator(NEAR_SIMILARITY, NUM_PERMUTATIONS, True, NUM_BANDS, SEED)
    texts: set[int] = set()
    num_compared = num_near = 0
    for batch in batches(compared):
        num_compared += len(batch)
        different = []
        for document in batch:
            text = int(hashes[document.number])
            if text not in texts:
                texts.add(text)
                different.append(document)
        for document, signature in signed(different):
            num_near += not index.add(str(document.number), signature)
    return {"num_near_duplicates": num_near, "num_compared": num_compared}


def count_languages(corpus: ParsedCorpus) -> dict[str, Any]:
    """The languages of documents at even distances, the most frequent first; None of those with too few letters."""
    identifier = LanguageIdentifier()
    numbers = range(0, len(corpus), max(1, ceil_div(len(corpus), MAX_IDENTIFIED)))
    counts: Counter[str | None] = Counter()
    for text in _beginnings(corpus, numbers):
        counts[next((language for language, _share in identifier.rank(text)), None)] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
    languages = [{"language": language, "num_documents": count} for language, count in ordered[:NUM_LANGUAGES]]
    return {"languages": languages, "num_identified": counts.total()}


def _beginnings(corpus: ParsedCorpus, numbers: Iterable[int]) -> Iterator[str]:
    """The first IDENTIFIED_CHARACTERS of documents, as far as MAX_SAMPLE_BYTES of records reach."""
    budget = MAX_SAMPLE_BYTES
    for number in numbers:
        start, end = corpus.bounds(number)
        if corpus.kind == "text":
            data = corpus.read(start, min(end, start + 4 * IDENTIFIED_CHARACTERS))
            yield codecs.utf_8_decode(data, "ignore", False)[0]
        elif end - start <= min(budget, MAX_IDENTIFIED_BYTES):
            budget -= end - start
            yield "\n".join(strings(corpus.read(start, end).decode()))


def preview_splits(corpus: ParsedCorpus, source: CorpusInput, texts: Hashes) -> list[dict[str, Any]]:
    """What each split that the corpus can be given would hold out, at some fractions."""
    splits: list[tuple[str, float]] = [("document", fraction) for fraction in FRACTIONS]
    groups = texts
    labels: list[str] = []
    if corpus.kind == "classification":
        labels = read_labels(source)
        splits += [("label", fraction) for fraction in FRACTIONS]
    with suppress(Failure):  # of a corpus that was read without a column of groups
        groups = read_groups(source)
        splits += [("column", 0.0), *(("group", fraction) for fraction in FRACTIONS)]
    rows = []
    for split, fraction in splits:
        try:
            is_held_out = hold_out(split, fraction, texts, groups, labels)
        except Failure:  # a column of groups that does not name sides
            continue
        rows.append(
            {
                "split": split,
                "fraction": fraction if split != "column" else None,
                "num_held_out": int(is_held_out.sum()),
                "num_held_out_bytes": int(corpus.lengths()[is_held_out].sum()),
                "num_repeated": count_repeated(texts, is_held_out),
            }
        )
    return rows


class TokenCounter:
    """Counts the tokens of documents, which come in parts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.counts = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)  # by token id
        self.lengths: list[int] = []  # of each document, in tokens
        self.num_bytes = 0

    def add(self, texts: list[list[str]]) -> None:
        """Count documents, each a list of texts."""
        flat = [text for parts in texts for text in parts]
        encoded = self._tokenizer.encode_batch_fast(flat, add_special_tokens=False)
        ids = [encoding.ids for encoding in encoded]
        self.num_bytes += sum(len(text.encode()) for text in flat)
        position = 0
        for parts in texts:
            self.lengths.append(sum(len(tokens) for tokens in ids[position : position + len(parts)]))
            position += len(parts)
        joined = np.fromiter((token for tokens in ids for token in tokens), dtype=np.int64)
        counts = np.bincount(joined, minlength=len(self.counts))
        if len(counts) > len(self.counts):  # an added token beyond the vocabulary
            self.counts = np.pad(self.counts, (0, len(counts) - len(self.counts)))
        self.counts += counts

    def frequent(self) -> list[dict[str, Any]]:
        """The most frequent tokens, with the text that each stands for."""
        order = np.lexsort((np.arange(len(self.counts)), -self.counts))[:NUM_FREQUENT]
        return [
            {"id": int(n), "text": self._text(int(n)), "count": int(self.counts[n])} for n in order if self.counts[n]
        ]

    def _text(self, token: int) -> str:
        text = self._tokenizer.decode([token], skip_special_tokens=False)
        return text if text and "\ufffd" not in text else self._tokenizer.id_to_token(token) or ""


def cuts(lengths: list[int]) -> list[dict[str, int]]:
    """For each sequence length: how many documents are longer, and how many of their tokens do not fit."""
    array = np.asarray(lengths, dtype=np.int64)
    return [
        {
            "length": length,
            "num_longer": int((array > length).sum()),
            "num_cut_tokens": int(np.maximum(array - length, 0).sum()),
        }
        for length in CUT_LENGTHS
    ]


def _sample(corpus: ParsedCorpus, stride: int) -> Iterator[tuple[int, list[str]]]:
    """The texts of every `stride`-th document, until MAX_SAMPLE_BYTES are read; a longer first document is cut."""
    budget = MAX_SAMPLE_BYTES
    for number in range(0, len(corpus), stride):
        start, end = corpus.bounds(number)
        budget -= end - start
        if budget < 0 and number:
            return
        if corpus.kind == "text":
            data = corpus.read(start, min(end, start + MAX_SAMPLE_BYTES))
            text = codecs.utf_8_decode(data, "ignore", False)[0].encode()
            yield number, [chunk.text for chunk in split_document(text, 0, len(text))]
        else:
            yield number, list(strings(corpus.read(start, end).decode()))


def count_tokens(corpus: ParsedCorpus, tokenizer: Tokenizer, progress: Callable[[int], None]) -> dict[str, Any]:
    """What a tokenizer makes of a sample of the documents."""
    stride = max(1, ceil_div(corpus.num_bytes, SAMPLE_BYTES))
    counter = TokenCounter(tokenizer)
    numbers: list[int] = []
    for batch in _batches(_sample(corpus, stride)):
        counter.add([texts for _number, texts in batch])
        numbers += [number for number, _texts in batch]
        progress(counter.num_bytes)
    longest = heapq.nlargest(NUM_LONGEST, zip(counter.lengths, [-n for n in numbers], strict=True))
    return {
        "stride": stride,
        "num_documents": len(numbers),
        "num_stored_bytes": sum(end - start for start, end in map(corpus.bounds, numbers)),
        "num_bytes": counter.num_bytes,
        "num_tokens": int(counter.counts.sum()),
        "is_complete": len(numbers) == len(corpus) and corpus.num_bytes <= MAX_SAMPLE_BYTES,
        "vocab_size": len(counter.counts),
        "num_used_tokens": int((counter.counts > 0).sum()),
        "median_length": int(np.median(counter.lengths)) if counter.lengths else 0,
        "max_length": max(counter.lengths, default=0),
        "cuts": cuts(counter.lengths),
        "frequent": counter.frequent(),
        "longest": [corpus.describe(-number, num_tokens=length) for length, number in longest],
    }


def _batches(documents: Iterator[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    """Documents together that have about BATCH_BYTES characters."""
    batch: list[tuple[int, list[str]]] = []
    size = 0
    for number, texts in documents:
        batch.append((number, texts))
        size += sum(map(len, texts))
        if size >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def longest_documents(corpus: ParsedCorpus) -> list[dict[str, Any]]:
    """The longest documents of all, by their bytes."""
    lengths = corpus.lengths()
    order = np.lexsort((np.arange(len(lengths)), -lengths))[:NUM_LONGEST]
    return [corpus.describe(int(number)) for number in order]


def count(directory: Path, kind: str, tokenizer: Path | None, progress: Callable[[int], None]) -> dict[str, Any]:
    """All statistics of a corpus; those of tokens with a tokenizer only."""
    corpus = ParsedCorpus(directory, kind)
    source = CorpusInput(id="", path=str(directory), sha256="", kind=kind)
    texts = hash_texts(corpus, source, progress)
    result = {
        "num_documents": len(corpus),
        "num_text_bytes": corpus.num_bytes,
        **count_duplicates(corpus, texts),
        **count_near_duplicates(corpus, directory, texts),
        **count_languages(corpus),
        "splits": preview_splits(corpus, source, texts),
        "longest": longest_documents(corpus),
        "tokens": None,
    }
    if tokenizer is not None:
        try:
            loaded = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the only class that tokenizers raises
            raise OSError(0, str(error)) from None
        loaded.no_truncation()
        loaded.no_padding()
        result["tokens"] = count_tokens(corpus, loaded, lambda done: progress(corpus.num_bytes + done))
    return result


def main() -> None:
    """Count under limits, and report."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--kind", required=True)
    arguments.add_argument("--tokenizer", type=Path)
    arguments.add_argument("--memory", type=int, required=True, help="what it may use, for the message")
    options = arguments.parse_args()
    size = (options.directory / "text.bin").stat().st_size
    total = size + (min(size, SAMPLE_BYTES) if options.tokenizer else 0)
    try:
        report({"result": count(options.directory, options.kind, options.tokenizer, ProgressReporter(total))})
    except MemoryError:
        report({"failed": {"code": "statistics_memory", "values": {"limit_bytes": options.memory}}})
    except OSError as error:
        report({"failed": {"code": "bad_input", "values": {"why": str(error.strerror)[:500]}}})


if __name__ == "__main__":
    main()
