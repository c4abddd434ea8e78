"""Takes a file as it streams in: to disk in constant memory, counted and hashed on the way, gone if it breaks off."""

import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from anyio import to_thread
from starlette.requests import ClientDisconnect

from app.core import storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import file_size
from app.core.i18n import _
from trainer.run_dir import sync_directory

WRITE_BYTES = 1 << 20
SPARE_BYTES = 64 << 20  # what an upload must leave free on the disk


def check_declared(length: str | None, most: int, too_large: PanelError) -> None:
    """Refuse by its declared length what is too large, before a byte is stored."""
    declared = int(length) if length and length.isdecimal() else 0
    if declared > most:
        raise too_large
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


def _full(error: OSError) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return bad_field("file", "disk_full", _("The disk is full; the file was not saved."), 507)


class StreamedUpload:
    """The file on the disk while it grows."""

    def __init__(self, path: Path, most: int, too_large: PanelError) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._file = self._part.open("wb", buffering=WRITE_BYTES)
        self._hash = hashlib.sha256()
        self._most, self._too_large = most, too_large
        self.num_bytes = 0

    def write(self, pieces: list[bytes]) -> None:
        """Append. Raises beyond the limit, whatever length was declared."""
        try:
            for piece in pieces:
                self.num_bytes += len(piece)
                if self.num_bytes > self._most:
                    raise self._too_large
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
        self._part.rename(self._path)
        sync_directory(self._path.parent)
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # a full disk refuses what is still buffered
            self._file.close()
        self._part.unlink(missing_ok=True)


async def save_upload(stream: AsyncIterator[bytes], sink: StreamedUpload) -> str:
    """Take a file to its end and answer its hash. What breaks off or is refused leaves no file."""
    kept = False
    try:
        await drain(stream, sink)
        sha256 = await to_thread.run_sync(sink.finish)
        kept = True
    except ClientDisconnect:
        raise PanelError(
            400, "upload_broken", _("The upload was interrupted; nothing was saved. Send it again.")
        ) from None
    finally:
        if not kept:
            await to_thread.run_sync(sink.discard)
    return sha256


async def drain(stream: AsyncIterator[bytes], sink: StreamedUpload) -> None:
    """Write all that comes."""
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
