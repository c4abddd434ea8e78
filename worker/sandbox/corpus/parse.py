"""The sandboxed child that reads an upload.

`python -m worker.sandbox.corpus.parse DIRECTORY FORMAT ...`

It holds no credentials. It reports by JSON lines on standard output: {"done", "total"} while it reads, at last
{"result": {...}} or {"failed": {...}}. It writes `text.bin` (the documents' UTF-8 back to back) and `index.bin` (where
each ends, little-endian uint64) next to the upload, and renames both once they are complete. Text, JSON and tables are
read in constant memory by the standard library, other formats by libraries that are imported when a file needs them.

A .txt or .md file is one document, or several separated by form feeds; CRLF becomes LF, byte-order marks are removed.
A .jsonl or .json file has one JSON object a line, blank lines aside, or an array of objects; the string `text` of an
object is a document, or the object is a record of another kind. A .csv or .tsv file has one record a row, its first row
names the keys; so do spreadsheets, and Parquet and Arrow files by their schema. See record_schema.py. HTML, PDF, Word,
EPUB and source code are one document a file (documents.py). Compressed files and archives: containers.py.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from trainer.formats import corpus_formats
from trainer.formats.corpus_kinds import CORPUS_KINDS, GROUPS_FILE, group_hash
from worker.sandbox.corpus import columnar, decoding, documents
from worker.sandbox.corpus.containers import MAX_RATIO, Refused, Source, Sources, max_expanded_bytes
from worker.sandbox.corpus.fields import BadLine, BadLines, Record
from worker.sandbox.corpus.json_records import JsonRecords
from worker.sandbox.corpus.record_schema import GroupedDocument, RecordReader
from worker.sandbox.corpus.tables import DELIMITERS, Rows, TableRows, describe_columns
from worker.sandbox.disk_space import DiskSpace, storage_problem
from worker.sandbox.reporting import ProgressReporter, report

TEXT_FORMATS = ("txt", "md")
JSON_FORMATS = ("jsonl", "json")
KEPT_ENDINGS = 50  # of files that no format reads

_LINE_ENDS = ("\r\n", "\n", "\r", "\f")
_MARK = re.compile(rf"(?<=[\n\f]){decoding.BOM}")


class UnreadableCorpus(Exception):
    """The whole file cannot be a corpus."""

    def __init__(self, problems: list[dict[str, Any]], **more: Any) -> None:
        super().__init__(problems)
        self.report = {"problems": problems, **more}


class CorpusWriter:
    """Writes documents and their index to temporary files; counts and hashes on the way."""

    def __init__(self, directory: Path, *, has_groups: bool = False, keep_free: int = 0) -> None:
        """With `has_groups`, the hash of each document's group is written to `groups.bin`."""
        self.space = DiskSpace(directory, keep_free)
        self._directory = directory
        self._groups = array("Q") if has_groups else None
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
        self.space.spend(len(data))
        self._text.write(data)
        self._text_hash.update(data)
        self.num_bytes += len(data)
        self.num_characters += len(text)

    def documents(self, texts: list[str], groups: Sequence[int] | None = None) -> None:
        """Append whole documents; `groups` are the hashes of theirs, if not those of GroupedDocument."""
        encoded = [text.encode() for text in texts]
        if self._groups is not None:
            self._groups.extend(map(_hash_group, texts) if groups is None else groups)
        for data in encoded:
            self.num_bytes += len(data)
            self._ends.append(self.num_bytes)
        joined = b"".join(encoded)
        self.space.spend(len(joined))
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
        if self._groups is not None:
            self._groups.append(0)
        self.num_documents += 1
        self._flush_index(decoding.CHUNK_BYTES)

    def _flush_index(self, keep: int) -> None:
        if len(self._ends) * 8 < keep:
            return
        if sys.byteorder == "big":
            self._ends.byteswap()
        data = self._ends.tobytes()
        self.space.spend(len(data))
        self._index.write(data)
        self._index_hash.update(data)
        self._ends = array("Q")

    def finish(self) -> str:
        """Sync, put all files in their final place, and return the hash of the texts and their index."""
        self._flush_index(0)
        self._write_groups()
        for file, name in ((self._text, "text.bin"), (self._index, "index.bin")):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._temporary(name).rename(self._directory / name)
        self._place_groups()
        return hashlib.sha256(self._text_hash.digest() + self._index_hash.digest()).hexdigest()

    def _write_groups(self) -> None:
        if self._groups is None:
            return
        if sys.byteorder == "big":
            self._groups.byteswap()
        data = self._groups.tobytes()
        self.space.spend(len(data))
        self._temporary(GROUPS_FILE).write_bytes(data)

    def _place_groups(self) -> None:
        path = self._directory / GROUPS_FILE
        if self._groups is None:
            path.unlink(missing_ok=True)  # of an earlier reading
        else:
            self._temporary(GROUPS_FILE).rename(path)

    def discard(self) -> None:
        """Delete the temporary files."""
        for name in ("text.bin", "index.bin", GROUPS_FILE):
            self._temporary(name).unlink(missing_ok=True)


def _hash_group(text: str) -> int:
    group = text.group if isinstance(text, GroupedDocument) else None
    return 0 if group is None else group_hash([group.encode("utf-8", "surrogatepass")])


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


class FileReader:
    """Reads the files of an upload into documents, with what was asked for and what was counted."""

    def __init__(
        self,
        output: CorpusWriter,
        shape: RecordReader,
        bad_lines: BadLines,
        progress: Callable[[int], None],
        max_bytes: int,
        requested_encoding: str | None = None,
        bad_bytes: str | None = None,
    ) -> None:
        """Rows of a table of columns, which a few bytes may repeat without end, have at most `max_bytes` of text."""
        self._max_bytes = max_bytes
        self._output, self._shape, self._bad_lines, self._progress = output, shape, bad_lines, progress
        self._requested_encoding, self._bad_bytes = requested_encoding, bad_bytes
        self.encoding: str | None = None  # of the last file that is text in one
        self.encoding_reason: decoding.EncodingReason | None = None
        self.num_bad_places = 0

    def read(self, source: Source) -> None:
        """Read one file. A member of an archive that cannot be read is a bad line. Raises Undecodable, Refused."""
        try:
            self._read(source)
        except BadLine as bad:
            if source.name is None:
                raise Refused(**bad.problem) from None
            self._bad_lines.add(bad, None)
        except decoding.Undecodable as error:
            if source.name is None:
                raise
            undecodable = BadLine(error.code, encoding=error.encoding, context=error.context)
            self._bad_lines.add(undecodable, error.line, byte=error.byte)

    def _read(self, source: Source) -> None:
        if source.form in corpus_formats.ENCODED_FORMATS:
            self._read_encoded(source)
        elif source.form in ("parquet", "arrow"):
            self._records(columnar.arrow_records(source.path, source.form, self._progress))
        elif source.form == "xlsx":
            for rows in columnar.sheet_rows(source.path):
                self._sheet(rows)
        elif source.form == "pdf":
            self._text(documents.pdf_text(source.path, self._bad_lines.remark, self._progress))
        else:
            self._text({"docx": documents.docx_text, "epub": documents.epub_text}[source.form](source.path))

    def _read_encoded(self, source: Source) -> None:
        path, form = source.path, source.form
        encoding, skip, reason = decoding.sniff(path, self._requested_encoding, form == "html")
        if source.name is not None and not self._bad_bytes:
            for _text in decoding.chunks(path, encoding, skip, self._progress):
                pass  # a member that does not decode is left out whole
        self.encoding, self.encoding_reason = encoding, reason
        bad_places = decoding.BadPlaces(decoding.REPLACEMENTS[self._bad_bytes]) if self._bad_bytes else None
        texts = decoding.chunks(path, encoding, skip, self._progress, bad_places)
        try:
            if form in DELIMITERS:
                for text in Rows(form, self._shape, self._bad_lines).documents(texts):
                    self._output.documents([text])
            elif form in JSON_FORMATS:
                has_bytes = encoding == "utf-8" and bad_places is None
                first_byte = skip if has_bytes else None
                JsonRecords(self._output.documents, self._shape, self._bad_lines, first_byte).parse(texts)
            elif form in TEXT_FORMATS:
                self._shape.begin_text()
                parse_text(texts, self._output, self._bad_lines)
            else:
                self._whole(texts, form)
        finally:
            self.num_bad_places += bad_places.count if bad_places else 0

    def _whole(self, texts: Iterator[str], form: str) -> None:
        """A file that is one document: HTML, or source code. Raises BadLine."""
        parts: list[str] = []
        size = 0
        for part in _unix_lines(texts):
            parts.append(part)
            size += len(part)
            if size > documents.MAX_HTML_BYTES:
                raise BadLine("file_too_large_to_read", limit_bytes=documents.MAX_HTML_BYTES)
        text = "".join(parts)
        if decoding.SKIPPED in text:
            self._bad_lines.skip_document()
        elif form == "html":
            self._text(documents.html_text(text))
        elif text.strip():
            self._text(text)
        else:
            raise BadLine("file_empty")

    def _text(self, text: str) -> None:
        self._output.documents([self._shape.document_of_text(text)])

    def _records(self, records: Iterator[Record]) -> None:
        for number, record in enumerate(records, start=1):
            try:
                document = self._shape.document(record)
            except BadLine as bad:
                self._bad_lines.add(bad, number)
            else:
                self._output.documents([document])
            if self._output.num_bytes > self._max_bytes:
                raise Refused("expands_too_much", limit_bytes=self._max_bytes, ratio=MAX_RATIO)

    def _sheet(self, rows: Iterator[tuple[int, list[str]]]) -> None:
        table = TableRows(self._shape, self._bad_lines)
        for number, row in rows:
            try:
                document = table.document(row)
            except BadLine as bad:
                self._bad_lines.add(bad, number)
                if not table.names:
                    describe_columns(self._shape, bad, (cells for _number, cells in rows))
                    return
            else:
                self._output.documents([] if document is None else [document])


def parse(
    directory: Path,
    form: str,
    requested_encoding: str | None,
    skip_bad: bool,
    progress: Callable[[int], None],
    kind: str | None = None,
    bad_bytes: str | None = None,
    mapping: dict[str, Any] | None = None,
    group_column: str | None = None,
    keep_free: int = 0,
) -> dict[str, Any]:
    """Parse `directory`/upload, whose format trainer/formats/corpus_formats.py names, and return what was read.
    `kind` is that of its records; None to detect it from the first one. `bad_bytes` decides about bytes that cannot be
    decoded (see decoding.REPLACEMENTS). `mapping` has in `columns` the key of a record for each field of the kind;
    `group_column` is the key that names its group, `keep_free` the bytes of the disk that must stay free.
    Raises UnreadableCorpus, and OSError if the disk is full.
    """
    upload = directory / "upload"
    options = {"kind": kind, "skip_bad": skip_bad, "bad_bytes": bad_bytes, "mapping": mapping}
    options["group_column"] = group_column
    output = CorpusWriter(directory, has_groups=group_column is not None, keep_free=keep_free)
    shape = RecordReader(kind, mapping["columns"] if mapping else None, group_column)
    bad_lines = BadLines()
    scratch = directory / f"member.bin.{os.getpid()}"
    files = Sources(upload, form, scratch, bad_lines, progress, DiskSpace(directory, keep_free))
    max_bytes = max_expanded_bytes(upload.stat().st_size)
    reader = FileReader(output, shape, bad_lines, progress, max_bytes, requested_encoding, bad_bytes)

    def counted() -> dict[str, Any]:
        return {
            **options,
            **shape.facts(),
            **bad_lines.facts(),
            "num_bad_places": reader.num_bad_places,
            "num_files": files.num_files or None,
            "skipped_files": dict(files.skipped.most_common(KEPT_ENDINGS)),
        }

    try:
        for source in files:
            try:
                reader.read(source)
            except decoding.Undecodable as error:
                skip = decoding.sniff(source.path, requested_encoding, source.form == "html")[1]
                problems, numbers = decoding.list_bad_places(source.path, error, skip, progress)
                numbers["num_bytes"] = source.path.stat().st_size
                broken = {
                    "encoding": error.encoding,
                    "is_encoding_right": decoding.is_encoding_right(**numbers),
                    "is_counted_in_part": numbers["num_bad_places"] >= decoding.MAX_BAD_PLACES,
                    "candidates": decoding.candidates(source.path, error.encoding, progress),
                    **numbers,
                }
                facts = {**counted(), "num_bad_places": numbers["num_bad_places"], "broken_files": [broken]}
                raise UnreadableCorpus(problems, **facts) from None
        if bad_lines and not skip_bad:
            raise UnreadableCorpus(bad_lines.problems, **counted())
        if not output.num_documents:
            code = "all_skipped" if bad_lines.num_skipped else "empty"
            raise UnreadableCorpus([{"code": code}, *bad_lines.problems], **counted())
        sha256 = output.finish()
    except Refused as refused:
        raise UnreadableCorpus([refused.problem], **counted()) from None
    finally:
        output.discard()
        files.scratch.unlink(missing_ok=True)
    return {
        "encoding": reader.encoding,
        "kind": shape.kind or "text",
        "num_documents": output.num_documents,
        "num_characters": output.num_characters,
        "num_text_bytes": output.num_bytes,
        "text_sha256": sha256,
        "problems": bad_lines.problems,
        "progress": {**counted(), "encoding_reason": reader.encoding_reason},
    }


def main() -> None:
    """Parse as the arguments say, under limits, and report."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("form")
    arguments.add_argument("--kind", choices=CORPUS_KINDS)
    arguments.add_argument("--mapping", type=json.loads)
    arguments.add_argument("--group-column")
    arguments.add_argument("--encoding", choices=("utf-8", *decoding.CANDIDATES))
    arguments.add_argument("--skip-bad", action="store_true")
    arguments.add_argument("--bad-bytes", choices=tuple(decoding.REPLACEMENTS))
    arguments.add_argument("--memory", type=int, required=True, help="what it may use, for the message")
    arguments.add_argument("--keep-free", type=int, default=0, help="bytes of the disk that must stay free")
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
            options.mapping,
            options.group_column,
            options.keep_free,
        )
        report({"result": result})
    except UnreadableCorpus as refused:
        report({"failed": refused.report})
    except MemoryError:
        report({"failed": {"problems": [{"code": "out_of_memory", "limit_bytes": options.memory}]}})
    except OSError as error:
        report({"failed": {"problems": [storage_problem(error)]}})


if __name__ == "__main__":
    main()
