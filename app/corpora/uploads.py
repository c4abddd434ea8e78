"""Streams an uploaded corpus to disk and records it with its name, encoding and kind."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from anyio import to_thread

from app.core import db, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import file_size
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.models import Corpus
from app.core.names import checked_name
from app.core.principal import Principal
from app.core.settings import settings
from app.corpora import service
from app.corpora.problems import ENCODINGS
from app.corpora.record_kinds import checked_kind
from app.web import uploads
from trainer.formats import corpus_formats

MAX_FILENAME_LENGTH = 255


@dataclass(frozen=True)
class Label:
    """The name and options of an upload. The file name is only displayed, never used as a path.

    Files under /v1 have a purpose, perhaps a lifetime in seconds, and file names of any ending.
    """

    filename: str
    name: str
    encoding: str | None = None
    kind: str | None = None
    format: str | None = None
    purpose: str | None = None
    lifetime: int | None = None


def label(filename: str, name: str = "", encoding: str = "", kind: str = "") -> Label:
    """Check the name and options of an upload before its content is read. Raises PanelError."""
    filename = checked_filename(filename)
    stem = corpus_formats.stem_of(filename)
    name = checked_name(name.strip() or stem or filename, max_length=service.MAX_NAME_LENGTH)
    return Label(filename, name, checked_encoding(encoding), checked_kind(kind))


def checked_filename(filename: str) -> str:
    """The name of a file that can be read, by its ending. Raises PanelError."""
    if corpus_formats.format_of(filename.strip()) is None:
        message = _(
            "“{filename}” is not a supported file. Text, source code, HTML, PDF, Word (.docx), EPUB, JSON, CSV, "
            "spreadsheets, Parquet and Arrow are, also in .gz, .zst, .zip or .tar.",
            filename=filename,
        )
        raise bad_field("filename", "filename_extension", message)
    return checked_name(filename, max_length=MAX_FILENAME_LENGTH, field="filename")


def checked_encoding(encoding: str) -> str | None:
    """A supported encoding, or None for UTF-8 or that of a byte-order mark. Raises PanelError for another one."""
    if encoding and encoding not in ENCODINGS:
        expected = ", ".join(ENCODINGS)
        raise bad_field("encoding", "encoding_unknown", _("Choose an encoding of: {expected}.", expected=expected))
    return encoding or None


def check_declared(length: str | None) -> None:
    """Check the Content-Length of an upload before a byte is stored. Raises PanelError if it is too large."""
    uploads.check_declared(length, settings().max_upload_bytes, too_large(), copies=2)  # it, and its parsed text


def too_large() -> PanelError:
    """The error for a file over the limit."""
    limit = file_size(settings().max_upload_bytes)
    return bad_field("file", "file_too_large", _("The file is larger than the limit of {limit}.", limit=limit), 413)


@dataclass(frozen=True)
class StoredUpload:
    """A file on disk whose corpus is not recorded yet."""

    corpus_id: str
    filename: str
    num_bytes: int
    sha256: str

    def discard(self) -> None:
        """Delete the file."""
        service.remove_files(self.corpus_id)


async def receive(principal: Principal, what: Label, stream: AsyncIterator[bytes]) -> Corpus:
    """Store an upload and record it. A failed upload leaves no file and no row. Raises PanelError."""
    return await record(principal, what, await store(what.filename, stream))


async def store(filename: str, stream: AsyncIterator[bytes]) -> StoredUpload:
    """Write a file to disk. A failed upload leaves no file. Raises PanelError."""
    corpus_id = new_id()
    path = storage.corpus(corpus_id) / "upload"
    sink = await to_thread.run_sync(uploads.StreamedUpload, path, settings().max_upload_bytes, too_large())
    try:
        sha256 = await uploads.save_upload(stream, sink)
    except BaseException:
        await to_thread.run_sync(service.remove_files, corpus_id)
        raise
    return StoredUpload(corpus_id, filename, sink.num_bytes, sha256)


async def record(principal: Principal, what: Label, upload: StoredUpload) -> Corpus:
    """Record a stored upload, or delete it if that fails. Raises PanelError."""
    try:
        corpus = await to_thread.run_sync(_record, principal, what, upload)
    except BaseException:
        await to_thread.run_sync(upload.discard)
        raise
    await to_thread.run_sync(queue.flush_outbox)
    return corpus


def _record(principal: Principal, what: Label, upload: StoredUpload) -> Corpus:
    with db.transaction() as session:
        return service.create_corpus(
            session,
            corpus_id=upload.corpus_id,
            owner_id=principal.user_id,
            num_bytes=upload.num_bytes,
            sha256=upload.sha256,
            **vars(what),
        )
