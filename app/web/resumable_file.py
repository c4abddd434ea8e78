"""The part of a file that has arrived so far. Its length is the offset from which its upload goes on.

What is written survives the end of this process at once, and a power failure once `close` or `sync` has returned: so
every offset that a client is told stays true.
"""

import base64
import binascii
import errno
import fcntl
import hashlib
import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core import disk
from app.core.errors import PanelError, bad_field
from app.core.formatting import number
from app.core.i18n import _
from app.web.uploads import disk_full, hashed, start_writeback
from trainer.run_dir import sha256_file, sync_directory

ALGORITHMS = ("sha256", "sha1", "md5")  # of checksums; tus demands SHA-1
CHECKSUM_DIFFERS = 460  # the status of tus
MAX_HASHES = 1_000  # unfinished hashes in memory, by path

# The SHA-256 of the first so many bytes of files, so that a file is not read again when it is complete.
_hashes: OrderedDict[Path, tuple[int, Any]] = OrderedDict()


@dataclass(frozen=True)
class Checksum:
    """What the body of a request must hash to."""

    algorithm: str
    digest: bytes


def parse_checksum(header: str) -> Checksum:
    """The checksum of a header, as `sha256 BASE64`. Raises PanelError."""
    algorithm, _space, text = header.strip().partition(" ")
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if algorithm not in ALGORITHMS or len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        names = ", ".join(ALGORITHMS)
        message = _("Upload-Checksum is one of {names}, a space, and the checksum in Base64.", names=names)
        raise bad_field("Upload-Checksum", "checksum_invalid", message)
    return Checksum(algorithm, digest)


class ResumableFile:
    """A file that is open for appending, by one request at a time.

    With a checksum, what a request sends counts only once it is complete and right: until then a note beside the file
    says how long it was before, so that whoever opens it after a crash cuts it there.
    """

    def __init__(self, path: Path, num_bytes: int, checksum: Checksum | None = None) -> None:
        """Open it, and cut what was not verified. Raises PanelError (423) while another process has it open."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._note = path, path.with_name(path.name + ".verified")
        self._num_bytes = num_bytes
        self._hash: Any = None
        self._file = path.open("ab")
        self._checksum = checksum
        self._check = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        try:
            self._lock()
            if self._note.exists():
                self._cut(int(self._note.read_text() or 0))
        except BaseException:
            self._file.close()
            raise
        self.offset = self._begin = os.fstat(self._file.fileno()).st_size
        length, digest = _hashes.pop(path, (0, hashlib.sha256()))
        self._hash = digest if length == self.offset else None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = _("Another request is sending this file. Try again when it has ended.")
            raise PanelError(423, "upload_locked", message, headers={"Retry-After": "2"}) from None

    def write(self, chunks: list[bytes]) -> None:
        """Append chunks. Raises PanelError: beyond the announced length (413), or if the disk is full (507)."""
        if self._check is not None and self.offset == self._begin:
            self._write_note()
        size = sum(map(len, chunks))
        if self.offset + size > self._num_bytes:
            message = _("More bytes arrive than the {n} that were announced.", n=number(self._num_bytes))
            raise PanelError(413, "upload_overrun", message)
        try:
            if disk.is_full():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with hashed(chunks, *filter(None, (self._hash, self._check))):
                self._file.writelines(chunks)
            self._file.flush()
            start_writeback(self._file, self.offset, size)
        except OSError as error:
            self._hash = None  # nobody knows how much of it was written
            raise disk_full(error) from None
        self.offset += size

    def _write_note(self) -> None:
        with self._note.open("w") as file:
            file.write(str(self._begin))
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self._note.parent)

    def _cut(self, length: int) -> None:
        self._hash = None
        self._file.truncate(length)
        os.fsync(self._file.fileno())
        self._note.unlink(missing_ok=True)

    def close(self, is_whole: bool) -> None:
        """Sync and close it. `is_whole` says that the request ended as it should; else what needs a checksum is cut.

        Raises PanelError (460) if the checksum is wrong.
        """
        try:
            with suppress(OSError):  # on a full disk the offset is what did fit
                self._file.flush()
            self.offset = os.fstat(self._file.fileno()).st_size
            if self._check is not None and self._checksum is not None:
                is_right = self._check.digest() == self._checksum.digest
                if not (is_whole and is_right):
                    self._cut(self._begin)
                    self.offset = self._begin
                self.sync()
                self._note.unlink(missing_ok=True)
                if is_whole and not is_right:
                    message = _("The checksum of these bytes is another one; they were not saved. Send them again.")
                    raise PanelError(CHECKSUM_DIFFERS, "checksum_differs", message)
            self.sync()
            self._keep_hash()
        finally:
            with suppress(OSError):  # closing flushes the buffer, which fails on a full disk
                self._file.close()

    def sync(self) -> None:
        """Have the disk hold what was written."""
        os.fsync(self._file.fileno())

    def _keep_hash(self) -> None:
        if self._hash is not None and self.offset < self._num_bytes:
            _hashes[self._path] = (self.offset, self._hash)
            while len(_hashes) > MAX_HASHES:
                _hashes.popitem(last=False)

    @property
    def is_complete(self) -> bool:
        """Whether all announced bytes have arrived."""
        return self.offset == self._num_bytes

    def sha256(self) -> str:
        """The SHA-256 of the complete file. It is read again where its bytes arrived in several processes."""
        sync_directory(self._path.parent)
        return self._hash.hexdigest() if self._hash is not None else sha256_file(self._path)
