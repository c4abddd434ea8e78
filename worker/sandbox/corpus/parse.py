"""The sandboxed child that reads an upload, with the standard library only.

`python -m worker.sandbox.corpus.parse DIRECTORY FORMAT ...`

It holds no credentials. It reports by JSON lines on standard output: {"done", "total"} while it reads, at last
{"result": {...}} or {"failed": {...}}. It writes `text.bin` (the documents' UTF-8 back to back) and `index.bin` (where
each ends, little-endian uint64) beside the upload, in constant memory, and renames both when they are whole.

A .txt or .md file is one document, or several parted by form feeds; CRLF becomes LF, the byte-order mark goes. A .jsonl
file has one JSON object a line, whose string `text` is a document, or which is a record of another kind; blank lines
are skipped. A .csv or .tsv file has one record a row, its first row names the keys. See record_schema.py.
"""

import argparse
import hashlib
import json
import os
import resource
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from trainer.corpus_kinds import CORPUS_KINDS
from worker.sandbox import strict_json
from worker.sandbox.corpus import decoding
from worker.sandbox.corpus.record_schema import BadLine, RecordReader
from worker.sandbox.corpus.tables import DELIMITERS, Rows
from worker.sandbox.reporting import ProgressReporter, lower_rlimit, report

MAX_LINE_CHARACTERS = 16 << 20
KEPT_PROBLEMS = 100


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
        """Leave nothing behind."""
        for name in ("text.bin", "index.bin"):
            self._temporary(name).unlink(missing_ok=True)


# ---- plain text -----------------------------------------------------------------------------------------------------


def parse_text(texts: Iterator[str], output: CorpusWriter) -> None:
    """One document, or one between each two form feeds. Pieces between them that are only white space are none."""
    blank = ""  # white space that may turn out to stand before a document, or to be nothing
    inside = False
    for text in _unix_lines(texts):
        for number, part in enumerate(text.split("\f")):
            if number:
                if inside:
                    output.end_document()
                inside, blank = False, ""
            if inside:
                output.write(part)
            elif part and not part.isspace():
                output.write(blank + part)
                inside, blank = True, ""
            elif len(blank) < decoding.CHUNK_BYTES:  # more white space than this before a text is not kept
                blank += part
    if inside:
        output.end_document()


def _unix_lines(texts: Iterator[str]) -> Iterator[str]:
    pending = ""
    for text in texts:
        text = pending + text
        pending = "\r" if text.endswith("\r") else ""
        text = text[: len(text) - len(pending)]
        yield text.replace("\r\n", "\n") if "\r" in text else text
    yield pending


# ---- JSON lines -----------------------------------------------------------------------------------------------------


def parse_record(line: str) -> dict[str, Any]:
    """The object of one line. Raises BadLine."""
    if len(line) > MAX_LINE_CHARACTERS:
        raise BadLine("line_too_long")
    try:
        record = strict_json.loads(line)
    except strict_json.DuplicateKey as error:
        raise BadLine("duplicate_key", key=error.key[:80]) from None
    except strict_json.InvalidConstant as error:
        raise BadLine("constant", word=error.word) from None
    except json.JSONDecodeError as error:
        cut = error.pos >= len(line.rstrip()) or error.msg.startswith("Unterminated")
        raise BadLine("half_line" if cut else "not_json", character=error.pos + 1) from None
    except RecursionError:
        raise BadLine("too_deep") from None
    except ValueError:  # a number with thousands of digits
        raise BadLine("not_json", character=1) from None
    if type(record) is not dict:
        raise BadLine("not_object")
    return record


class JsonLines:
    """Reads the lines of a file into documents and remembers the bad ones."""

    def __init__(self, output: CorpusWriter, shape: RecordReader, first_byte: int | None) -> None:
        self._output, self._shape = output, shape
        self._line = 1
        self._byte = first_byte  # where the next lines begin; None where the file is not UTF-8 and bytes cannot be told
        self.problems: list[dict[str, Any]] = []
        self.num_bad_lines = 0

    def parse(self, texts: Iterator[str]) -> None:
        """Read all lines. A line longer than the limit is bad, and is never held whole."""
        pending = ""
        skipping = False
        for text in texts:
            if skipping:
                rest_of_line, newline, text = text.partition("\n")
                self._advance(rest_of_line + newline, len(newline))
                skipping = not newline
            complete, newline, rest = text.rpartition("\n")
            if newline:
                self._lines(pending + complete + newline)
                pending = rest
            else:
                pending += text
            if len(pending) > MAX_LINE_CHARACTERS:
                self._bad(BadLine("line_too_long"), self._line, "")
                self._advance(pending, 0)
                pending = ""
                skipping = True
        self._lines(pending)

    def _lines(self, text: str) -> None:
        lines = text.split("\n")
        texts = []
        for number, line in enumerate(lines):
            if line and not line.isspace():
                try:
                    texts.append(self._shape.document(parse_record(line)))
                except BadLine as bad:
                    self._bad(bad, self._line + number, "\n".join([*lines[:number], ""]))
        self._output.documents(texts)
        self._advance(text, len(lines) - 1)

    def _advance(self, text: str, num_lines: int) -> None:
        self._line += num_lines
        if self._byte is not None:
            self._byte += len(text.encode())

    def _bad(self, bad: BadLine, line: int, before: str) -> None:
        self.num_bad_lines += 1
        if len(self.problems) < KEPT_PROBLEMS:
            place = {} if self._byte is None else {"byte": self._byte + len(before.encode())}
            self.problems.append({**bad.problem, "line": line, **place})


# ---- the whole ------------------------------------------------------------------------------------------------------


def parse(
    directory: Path,
    form: str,
    requested_encoding: str | None,
    skip_bad: bool,
    progress: Callable[[int], None],
    kind: str | None = None,
) -> dict[str, Any]:
    """Parse `directory`/upload and return what was found. `kind` is that of its records, where the first one shall not
    decide. Raises Refused.
    """
    upload = directory / "upload"
    encoding, skip = decoding.sniff(upload, requested_encoding)
    texts = decoding.chunks(upload, encoding, skip, progress)
    output = CorpusWriter(directory)
    shape = RecordReader(kind)
    lines: JsonLines | Rows = JsonLines(output, shape, skip if encoding == "utf-8" else None)
    try:
        if form in DELIMITERS:
            lines = Rows(form, shape, KEPT_PROBLEMS)
            for text in _of_table(lines, texts):
                output.documents([text])
        elif isinstance(lines, JsonLines) and form == "jsonl":
            lines.parse(texts)
        else:
            parse_text(texts, output)
        if lines.num_bad_lines and not skip_bad:
            raise UnreadableCorpus(lines.problems, num_bad_lines=lines.num_bad_lines)
        if not output.num_documents:
            raise UnreadableCorpus([{"code": "empty"}])
        sha256 = output.finish()
    except decoding.Undecodable as error:
        candidates = decoding.candidates(upload, encoding, progress)
        raise UnreadableCorpus([error.problem()], candidates=candidates) from None
    finally:
        output.discard()
    return {
        "encoding": encoding,
        "kind": shape.kind or "text",
        "num_documents": output.num_documents,
        "num_characters": output.num_characters,
        "num_text_bytes": output.num_bytes,
        "text_sha256": sha256,
        "problems": lines.problems,
        "progress": {"num_bad_lines": lines.num_bad_lines, **shape.facts()},
    }


def _of_table(rows: Rows, texts: Iterator[str]) -> Iterator[str]:
    try:
        yield from rows.documents(texts)
    except BadLine as bad:
        raise UnreadableCorpus([{**bad.problem, "line": 1}], num_bad_lines=1) from None


def main() -> None:
    """Parse as the arguments say, under limits, and report."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("form", choices=("txt", "md", "jsonl", *DELIMITERS))
    arguments.add_argument("--kind", choices=CORPUS_KINDS)
    arguments.add_argument("--encoding", choices=("utf-8", *decoding.CANDIDATES))
    arguments.add_argument("--skip-bad", action="store_true")
    arguments.add_argument("--memory", type=int, required=True)
    arguments.add_argument("--cpu", type=int, required=True)
    options = arguments.parse_args()
    size = (options.directory / "upload").stat().st_size
    lower_rlimit(resource.RLIMIT_AS, options.memory)
    lower_rlimit(resource.RLIMIT_CPU, options.cpu)
    lower_rlimit(resource.RLIMIT_CORE, 0)
    lower_rlimit(
        resource.RLIMIT_FSIZE, 8 * size + (1 << 20)
    )  # UTF-8 of another encoding, or an index of tiny documents
    try:
        result = parse(
            options.directory, options.form, options.encoding, options.skip_bad, ProgressReporter(size), options.kind
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
