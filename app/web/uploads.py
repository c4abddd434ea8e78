"""Streams an uploaded file to disk in constant memory, counts and hashes it, and deletes it if the upload fails."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import IO, Any

from anyio import CancelScope, to_thread
from starlette.requests import ClientDisconnect

from app.core import disk
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from trainer.run_dir import sync_directory

WRITE_BYTES = 1 << 20
_hashing = ThreadPoolExecutor(2, thread_name_prefix="hash")
# Of an operation whose body is the file, for the OpenAPI document.
RAW_BODY_SCHEMA = {
    "requestBody": {
        "required": True,
        "description": "The file itself, in any content type.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def check_declared(length: str | None, max_bytes: int, too_large: PanelError, copies: int = 1) -> None:
    """Check a Content-Length header before a byte is stored. The disk must have room for `copies` of the file.

    Raises `too_large` if it is over `max_bytes`, and PanelError (507) if the disk has too little space.
    """
    declared = int(length[:20]) if length and length.isdecimal() else 0
    if declared > max_bytes:
        raise too_large
    disk.require_room(max(1, copies * declared))


def start_writeback(file: IO[bytes], begin: int, size: int) -> None:
    """Have the kernel begin to write these bytes of a file to the disk, so that a later sync waits for less.

    A hint: where it is refused, nothing happens. What is on the disk already, the kernel may drop from its cache.
    """
    with suppress(OSError, AttributeError):  # macOS has no such function
        os.posix_fadvise(file.fileno(), begin, size, os.POSIX_FADV_DONTNEED)


@contextmanager
def hashed(chunks: Sequence[bytes], *digests: Any) -> Iterator[None]:
    """Add chunks to hashes in another thread, while the block writes them."""

    def update() -> None:
        for chunk, digest in product(chunks, digests):
            digest.update(chunk)

    updating = _hashing.submit(update)
    try:
        yield
    finally:
        updating.result()


def disk_full(error: OSError) -> Exception:
    """The error of an upload whose file cannot be written."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return bad_field("file", "disk_full", _("The disk is full; the file was not saved."), 507)


class StreamedUpload:
    """A file that is being uploaded, written to `path` with the suffix .part until it is complete."""

    def __init__(self, path: Path, max_bytes: int, too_large: PanelError) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        self._hash = hashlib.sha256()
        self._max_bytes = max_bytes
        self._too_large = too_large
        self.num_bytes = 0

    def write(self, chunks: list[bytes]) -> None:
        """Append chunks. Raises `too_large` beyond the limit, and PanelError (507) if the disk is full."""
        begin = self.num_bytes
        try:
            self.num_bytes += sum(map(len, chunks))
            if self.num_bytes > self._max_bytes:
                raise self._too_large
            with hashed(chunks, self._hash):
                self._file.writelines(chunks)
            self._file.flush()
            start_writeback(self._file, begin, self.num_bytes - begin)
            if disk.is_full():  # more than was declared, or others write meanwhile
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise disk_full(error) from None

    def finish(self) -> str:
        """Sync the file, move it to its final name and return its SHA-256. Raises PanelError if it is empty."""
        if not self.num_bytes:
            raise bad_field("file", "file_empty", _("The file is empty."))
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_full(error) from None
        self._file.close()
        self._part.rename(self._path)
        sync_directory(self._path.parent)
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Delete the incomplete file, if there is one."""
        with suppress(OSError):  # closing flushes the buffer, which fails on a full disk
            self._file.close()
        self._part.unlink(missing_ok=True)


async def save_upload(stream: AsyncIterator[bytes], upload: StreamedUpload) -> str:
    """Write a stream to its end and return the SHA-256 of the file. A failed upload leaves no file.

    Raises PanelError, also if the client disconnects.
    """
    is_complete = False
    try:
        await drain(stream, upload.write)
        sha256 = await to_thread.run_sync(upload.finish)
        is_complete = True
    except ClientDisconnect:
        raise PanelError(
            400, "upload_broken", _("The upload was interrupted; nothing was saved. Send it again.")
        ) from None
    finally:
        if not is_complete:
            await to_thread.run_sync(upload.discard)
    return sha256


async def drain(stream: AsyncIterator[bytes], write: Callable[[list[bytes]], None]) -> None:
    """Write a stream to its end, WRITE_BYTES at a time, in a thread, while the next bytes arrive.

    What arrived before an error is written too.
    Raises what `write` raises, and ClientDisconnect.
    """
    # Chunks from the network have 256 KiB at most: they are collected, to switch to a thread less often.
    chunks: list[bytes] = []
    size = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for chunk in stream:
            chunks.append(chunk)
            size += len(chunk)
            if writing is not None and writing.done():
                writing.result()  # an error ends the request at once
            if size >= WRITE_BYTES:
                await _finish(writing)
                writing = asyncio.create_task(to_thread.run_sync(write, chunks))
                chunks, size = [], 0
    finally:
        with CancelScope(shield=True):
            await _finish(writing)
            await to_thread.run_sync(write, chunks)


async def _finish(writing: asyncio.Task[None] | None) -> None:
    """Wait for a write, which goes on if this is cancelled. Raises what it raised."""
    if writing is not None:
        await asyncio.wait([writing])
        writing.result()
