"""Writes a tar archive while it is sent, with the SHA-256 of each of its files in the last one, MANIFEST.json."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from trainer.run_dir import MANIFEST

CHUNK_BYTES = 1 << 20


class FileChanged(Exception):
    """A file differs from what was said about it before: the archive must not end as if it were complete."""


@dataclass(frozen=True)
class ArchiveFile:
    """A file of an archive. `open` gives its content; with `sha256`, its content must have that hash."""

    name: str
    size: int
    open: Callable[[], BinaryIO]
    sha256: str | None = None


def tar_chunks(files: Iterator[ArchiveFile], identity: dict[str, object], modified_at: float) -> Iterator[bytes]:
    """The archive in pieces. Its manifest holds `identity` and name, size and hash of each file before it.

    `modified_at` are the Unix seconds that every file bears. Raises FileChanged.
    """
    listed = []
    for file in files:
        digest = hashlib.sha256()
        yield _header(file.name, file.size, modified_at)
        with file.open() as source:
            yield from _content(source, file, digest)
        yield _padding(file.size)
        if file.sha256 not in (None, digest.hexdigest()):
            raise FileChanged(f"{file.name} has another SHA-256 than {file.sha256}")
        listed.append({"name": file.name, "size": file.size, "sha256": digest.hexdigest()})
    text = json.dumps({**identity, "files": listed}, indent=2, ensure_ascii=False).encode()
    yield _header(MANIFEST, len(text), modified_at) + text + _padding(len(text))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _content(source: BinaryIO, file: ArchiveFile, digest: "hashlib._Hash") -> Iterator[bytes]:
    remaining = file.size
    while remaining:
        chunk = source.read(min(CHUNK_BYTES, remaining))
        if not chunk:
            raise FileChanged(f"{file.name} has fewer than {file.size} bytes")
        digest.update(chunk)
        remaining -= len(chunk)
        yield chunk


def _header(name: str, size: int, modified_at: float) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, int(modified_at), 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
