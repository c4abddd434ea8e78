"""Takes a file as it streams in: to disk in constant memory, counted and hashed on the way, gone if it breaks off."""

import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread
from starlette.requests import ClientDisconnect

from app import db, queue, storage
from app.auth import Principal
from app.corpora import service
from app.corpora.problems import ENCODINGS
from app.errors import PanelError, bad_field
from app.i18n import _
from app.models import Corpus, new_id
from app.settings import settings
from app.web import file_size
from trainer.rundir import sync_directory

WRITE_BYTES = 1 << 20
SPARE_BYTES = 64 << 20  # what an upload must leave free on the disk
MAX_FILENAME_LENGTH = 255


@dataclass(frozen=True)
class Label:
    """What an upload is called. Never a path: it is only shown."""

    filename: str
    name: str
    encoding: str | None


def label(filename: str, name: str = "", encoding: str = "") -> Label:
    """Check what an upload is called, before a byte of it is taken."""
    filename, name = filename.strip(), name.strip()
    stem, dot, extension = filename.rpartition(".")
    if not dot or extension.lower() not in service.FORMATS:
        message = _(
            "“{filename}” is not a kind of file that is read here. Upload .txt, .md or .jsonl.", filename=filename
        )
        raise bad_field("filename", "filename_extension", message)
    if len(filename) > MAX_FILENAME_LENGTH or not filename.isprintable():
        message = _("The file name is longer than {max} characters or holds some that cannot be shown.", max=255)
        raise bad_field("filename", "filename_invalid", message)
    name = name or stem or filename
    if len(name) > service.MAX_NAME_LENGTH or not name.isprintable():
        most = service.MAX_NAME_LENGTH
        message = _("The name is longer than {max} characters or holds some that cannot be shown.", max=most)
        raise bad_field("name", "name_invalid", message)
    return Label(filename, name, checked_encoding(encoding))


def checked_encoding(encoding: str) -> str | None:
    """The encoding asked for; none means UTF-8, or what the byte-order mark says."""
    if encoding and encoding not in ENCODINGS:
        expected = ", ".join(ENCODINGS)
        raise bad_field("encoding", "encoding_unknown", _("Choose an encoding of: {expected}.", expected=expected))
    return encoding or None


def check_declared(length: str | None) -> None:
    """Refuse by its declared length what is too large, before a byte is stored."""
    declared = int(length) if length and length.isdecimal() else 0
    if declared > settings().max_upload_bytes:
        raise _too_large()
    root = storage.data()
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free - SPARE_BYTES
    if declared > free:
        message = _(
            "The file has {size}, but the disk has only {free} left.",
            size=file_size(declared),
            free=file_size(max(0, free)),
        )
        raise bad_field("file", "disk_full", message, 507)


def _too_large() -> PanelError:
    limit = file_size(settings().max_upload_bytes)
    return bad_field(
        "file", "file_too_large", _("The file is larger than {limit}, the most one may have.", limit=limit), 413
    )


def _full(error: OSError) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return bad_field("file", "disk_full", _("The disk is full; the file was not kept."), 507)


class Sink:
    """The file on the disk while it grows."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._file = (directory / "upload.part").open("wb", buffering=WRITE_BYTES)
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, pieces: list[bytes]) -> None:
        """Append. Raises at the field `file` beyond the limit, whatever length was declared."""
        try:
            for piece in pieces:
                self.num_bytes += len(piece)
                if self.num_bytes > settings().max_upload_bytes:
                    raise _too_large()
                self._hash.update(piece)
                self._file.write(piece)
        except OSError as error:
            raise _full(error) from None

    def finish(self) -> str:
        """Sync, move to the final name, and return the hash."""
        if not self.num_bytes:
            raise bad_field("file", "file_empty", _("The file is empty."))
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _full(error) from None
        self._file.close()
        (self._directory / "upload.part").rename(self._directory / "upload")
        sync_directory(self._directory)
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # a full disk refuses what is still buffered
            self._file.close()
        shutil.rmtree(self._directory, ignore_errors=True)


async def receive(principal: Principal, what: Label, stream: AsyncIterator[bytes]) -> Corpus:
    """Take an upload and record it. What breaks off or is refused leaves no file and no row."""
    corpus_id = new_id()
    sink = await to_thread.run_sync(Sink, storage.corpus(corpus_id))
    kept = False
    try:
        await _drain(stream, sink)
        corpus = await to_thread.run_sync(_record, principal, what, corpus_id, sink)
        kept = True
    except ClientDisconnect:
        raise PanelError(400, "upload_broken", _("The upload broke off; nothing was kept. Send it again.")) from None
    finally:
        if not kept:
            await to_thread.run_sync(sink.discard)
    await to_thread.run_sync(queue.flush_outbox)
    return corpus


async def _drain(stream: AsyncIterator[bytes], sink: Sink) -> None:
    # A network piece is 64 KiB at most: collected, so that a thread is asked less often.
    pieces: list[bytes] = []
    size = 0
    async for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size >= WRITE_BYTES:
            await to_thread.run_sync(sink.write, pieces)
            pieces, size = [], 0
    await to_thread.run_sync(sink.write, pieces)


def _record(principal: Principal, what: Label, corpus_id: str, sink: Sink) -> Corpus:
    sha256 = sink.finish()
    with db.transaction() as session:
        return service.create_corpus(
            session,
            corpus_id=corpus_id,
            owner_id=principal.user_id,
            name=what.name,
            filename=what.filename,
            num_bytes=sink.num_bytes,
            sha256=sha256,
            encoding=what.encoding,
        )
