"""The sandboxed child that reads an upload, with the standard library only.

`python -m worker.sandbox.corpus.parse DIRECTORY FORMAT ...`

It holds no credentials. It reports by JSON lines on standard output: {"done", "total"} while it reads, at last
{"result": {...}} or {"failed": {...}}. It writes `text.bin` (the documents' UTF-8 back to back) and `index.bin` (where
each ends, little-endian uint64) next to the upload, in constant memory, and renames both once they are complete.

A .txt or .md file is one document, or several separated by form feeds; CRLF becomes LF, byte-order marks are removed.
A .jsonl or .json file has one JSON object a line, blank lines aside, or an array of objects; the string `text` of an
object is a document, or the object is a record of another kind. A .csv or .tsv file has one record a row, its first row
names the keys. See record_schema.py.
"""

import argparse
import hashlib
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from trainer.corpus_kinds import CORPUS_KINDS
from worker.sandbox.corpus import decoding
from worker.sandbox.corpus.fields import BadLines
from worker.sandbox.corpus.json_records import JsonRecords
from worker.sandbox.corpus.record_schema import RecordReader
from worker.sandbox.corpus.tables import DELIMITERS, Rows
from worker.sandbox.reporting import ProgressReporter, report

TEXT_FORMATS = ("txt", "md")
JSON_FORMATS = ("jsonl", "json")

_LINE_ENDS = ("\r\n", "\n", "\r", "\f")
_MARK = re.compile(rf"(?<=[\n\f]){decoding.BOM}")


class UnreadableCorpus(Exception):
    """The whole file cannot be a corpus."""

    def __init__(self, problems: list[dict[str, Any]], **more: Any) -> None:
        super().__init__(problems)
        self.report = {"problems": problems, **more}


class CorpusWriter:
    """Writes documents and their index to temporary files; counts and hashes on the way."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._text = self._open("text.bin")
        self._index = self._open("index.bin")
        self._text_hash, self._index_hash = hashlib.sha256(), hashlib.sha256()
        self._ends = array("Q")
        self.num_bytes = 0
        self.num_documents = 0
        self.num_characters = 0

    def _open(self, name: str) -> BinaryIO:
        return self._temporary(name).open("wb", buffering=decoding.CHUNK_BYTES)

    def _temporary(self, name: str) -> Path:
        return self._directory / f"{name}.{os.getpid()}"  # two that parse the same upload do not meet

    def write(self, text: str) -> None:
        """Append to the present document."""
        data = text.encode()
        self._text.write(data)
        self._text_hash.update(data)
        self.num_bytes += len(data)
        self.num_characters += len(text)

    def documents(self, texts: list[str]) -> None:
        """Append whole documents."""
        encoded = [text.encode() for text in texts]
        for data in encoded:
            self.num_bytes += len(data)
            self._ends.append(self.num_bytes)
        joined = b"".join(encoded)
        self._text.write(joined)
        self._text_hash.update(joined)
        self.num_documents += len(texts)
        self.num_characters += sum(map(len, texts))
        self._flush_index(decoding.CHUNK_BYTES)

    def begin_document(self) -> None:
        """What `write` appends from here on is one document."""
        self._text.flush()
        self._before = (self.num_bytes, self.num_characters, self._text_hash.copy())

    def drop_document(self) -> None:
        """Remove what was written since `begin_document`."""
        self.num_bytes, self.num_characters, self._text_hash = self._before
        self._text.seek(self.num_bytes)
        self._text.truncate()

    def end_document(self) -> None:
        """The present document is whole."""
        self._ends.append(self.num_bytes)
        self.num_documents += 1
        self._flush_index(decoding.CHUNK_BYTES)

    def _flush_index(self, keep: int) -> None:
        if len(self._ends) * 8 < keep:
            return
        if sys.byteorder == "big":
            self._ends.byteswap()
        data = self._ends.tobytes()
        self._index.write(data)
        self._index_hash.update(data)
        self._ends = array("Q")

    def finish(self) -> str:
        """Sync, put both files in their final place, and return the hash of both."""
        self._flush_index(0)
        for file, name in ((self._text, "text.bin"), (self._index, "index.bin")):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._temporary(name).rename(self._directory / name)
        return hashlib.sha256(self._text_hash.digest() + self._index_hash.digest()).hexdigest()

    def discard(self) -> None:
        """Delete the temporary files."""
        for name in ("text.bin", "index.bin"):
            self._temporary(name).unlink(missing_ok=True)


# ---- plain text -----------------------------------------------------------------------------------------------------


def parse_text(texts: Iterator[str], output: CorpusWriter, bad_lines: BadLines) -> None:
    """Form feeds separate documents. Parts that are only white space are dropped, and those with bytes for which the
    whole document is to be left out.
    """
    blank = ""  # white space that may turn out to stand before a document, or to be nothing
    inside = is_skipped = False
    for text in _unix_lines(texts):
        for number, part in enumerate(text.split("\f")):
            if number:
                if inside:
                    output.end_document()
                inside, is_skipped, blank = False, False, ""
            if decoding.SKIPPED in part and not is_skipped:
                if inside:
                    output.drop_document()
                bad_lines.skip_document()
                inside, is_skipped = False, True
            if is_skipped:
                continue
            if inside:
                output.write(part)
            elif part and not part.isspace():
                output.begin_document()
                output.write(blank + part)
                inside, blank = True, ""
            elif len(blank) < decoding.CHUNK_BYTES:  # more white space than this before a text is not kept
                blank += part
    if inside:
        output.end_document()


def _unix_lines(texts: Iterator[str]) -> Iterator[str]:
    """The text with CRLF as LF, without the byte-order marks that begin the lines of joined files."""
    pending = ""
    for text in texts:
        text = pending + text
        pending = next((end for end in _LINE_ENDS if text.endswith(end)), "")  # what follows it decides
        yield _unix_text(text[: len(text) - len(pending)])
    yield _unix_text(pending)


def _unix_text(text: str) -> str:
    text = text.replace("\r\n", "\n")
    return _MARK.sub("", text) if decoding.BOM in text else text


# ---- the whole ------------------------------------------------------------------------------------------------------


def parse(
    directory: Path,
    form: str,
    requested_encoding: str | None,
    skip_bad: bool,
    progress: Callable[[int], None],
    kind: str | None = None,
    bad_bytes: str | None = None,
) -> dict[str, Any]:
    """Parse `directory`/upload and return what was read. `kind` is that of its records; None to detect it from
    the first one. `bad_bytes` decides about bytes that cannot be decoded (see decoding.REPLACEMENTS). Raises
    UnreadableCorpus.
    """
    upload = directory / "upload"
    options = {"kind": kind, "skip_bad": skip_bad, "bad_bytes": bad_bytes}
    encoding, skip, reason = decoding.sniff(upload, requested_encoding)
    bad_places = decoding.BadPlaces(decoding.REPLACEMENTS[bad_bytes]) if bad_bytes else None
    texts = decoding.chunks(upload, encoding, skip, progress, bad_places)
    output = CorpusWriter(directory)
    shape = RecordReader(kind)
    bad_lines = BadLines()
    try:
        if form in DELIMITERS:
            for text in Rows(form, shape, bad_lines).documents(texts):
                output.documents([text])
        elif form in JSON_FORMATS:
            has_bytes = encoding == "utf-8" and bad_places is None
            JsonRecords(output.documents, shape, bad_lines, skip if has_bytes else None).parse(texts)
        else:
            parse_text(texts, output, bad_lines)
        if bad_lines and not skip_bad:
            raise UnreadableCorpus(bad_lines.problems, **options, **bad_lines.facts())
        if not output.num_documents:
            raise UnreadableCorpus(
                [{"code": "all_skipped" if bad_lines.num_skipped else "empty"}, *bad_lines.problems],
                **options,
                **bad_lines.facts(),
                num_bad_places=bad_places.count if bad_places else 0,
            )
        sha256 = output.finish()
    except decoding.Undecodable as error:
        places = decoding.list_bad_places(upload, error, skip, progress)
        candidates = decoding.candidates(upload, encoding, progress)
        raise UnreadableCorpus(places.pop("problems"), **places, **options, candidates=candidates) from None
    finally:
        output.discard()
    return {
        "encoding": encoding,
        "kind": shape.kind or "text",
        "num_documents": output.num_documents,
        "num_characters": output.num_characters,
        "num_text_bytes": output.num_bytes,
        "text_sha256": sha256,
        "problems": bad_lines.problems,
        "progress": {
            **options,
            **bad_lines.facts(),
            **shape.facts(),
            "encoding_reason": reason,
            "num_bad_places": bad_places.count if bad_places else 0,
        },
    }


def main() -> None:
    """Parse as the arguments say, under limits, and report."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("form", choices=(*TEXT_FORMATS, *JSON_FORMATS, *DELIMITERS))
    arguments.add_argument("--kind", choices=CORPUS_KINDS)
    arguments.add_argument("--encoding", choices=("utf-8", *decoding.CANDIDATES))
    arguments.add_argument("--skip-bad", action="store_true")
    arguments.add_argument("--bad-bytes", choices=tuple(decoding.REPLACEMENTS))
    arguments.add_argument("--memory", type=int, required=True, help="what it may use, for the message")
    options = arguments.parse_args()
    size = (options.directory / "upload").stat().st_size
    try:
        result = parse(
            options.directory,
            options.form,
            options.encoding,
            options.skip_bad,
            ProgressReporter(size),
            options.kind,
            options.bad_bytes,
        )
        report({"result": result})
    except UnreadableCorpus as refused:
        report({"failed": refused.report})
    except MemoryError:
        report({"failed": {"problems": [{"code": "out_of_memory", "limit_bytes": options.memory}]}})
    except OSError as error:
        report({"failed": {"problems": [{"code": "storage", "why": os.strerror(error.errno or 0)}]}})


if __name__ == "__main__":
    main()
