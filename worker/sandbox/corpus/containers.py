"""Files inside an upload: of a compressed file its content, of an archive each member, one after the other.

Whatever an archive says, nothing is written but one scratch file in the directory of the corpus, whose name is ours.
"""

import errno
import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from trainer.formats import corpus_formats
from worker.sandbox.corpus.fields import BadLine, BadLines
from worker.sandbox.disk_space import DiskSpace

MAX_RATIO = 100  # of the bytes that come out of a compressed file to those that go in
MIN_EXPANDED_BYTES = 16 << 20  # that any file may have
MAX_MEMBERS = 10_000
MAX_NAME_CHARACTERS = 1_000
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
COPY_BYTES = 1 << 20
BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError),
    *(RuntimeError, OSError, ValueError),
)

_UNSAFE = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|[\x00-\x1f\x7f]")


class Refused(Exception):
    """An upload that is refused whole: a code and the values of its message."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.problem = BadLine(code, **values).problem


@dataclass(frozen=True)
class Source:
    """A file to read. Without a name it is the upload itself, or what it decompresses to."""

    path: Path
    form: str
    name: str | None = None


@dataclass
class Budget:
    """How many bytes may still come out of a compressed file."""

    limit: int
    num_bytes: int = 0

    def spend(self, num_bytes: int) -> None:
        """Raises Refused beyond the limit."""
        self.num_bytes += num_bytes
        if self.num_bytes > self.limit:
            raise Refused("expands_too_much", limit_bytes=self.limit, ratio=MAX_RATIO)


def max_expanded_bytes(num_bytes: int) -> int:
    """How many bytes may come out of so many compressed ones."""
    return max(MAX_RATIO * num_bytes, MIN_EXPANDED_BYTES)


@dataclass
class Sources:
    """The files of an upload. `skipped` counts members that no format reads, by the endings of their names."""

    upload: Path
    form: str
    scratch: Path
    bad_lines: BadLines
    progress: Callable[[int], None]
    space: DiskSpace
    skipped: Counter[str] = field(default_factory=Counter)
    num_files: int = 0

    def __iter__(self) -> Iterator[Source]:
        """Each file while it exists. Raises Refused. Members that cannot be read are bad lines."""
        self._budget = Budget(max_expanded_bytes(self.upload.stat().st_size))
        inner, compression = corpus_formats.parts_of(self.form)
        try:
            if inner == "zip":
                yield from self._members(self._zip_members())
            elif inner == "tar":
                yield from self._members(self._tar_members(compression))
            elif compression:
                with self._broken(), decompressed(self.upload, compression) as stream:
                    self._copy(stream)
                yield Source(self.scratch, inner)
            else:
                yield Source(self.upload, inner)
        finally:
            self.scratch.unlink(missing_ok=True)

    @contextmanager
    def _broken(self) -> Iterator[None]:
        try:
            yield
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:  # not of the content
                raise
            raise Refused("archive_broken", why=str(error)[:200] or type(error).__name__) from None

    def _copy(self, stream: IO[bytes]) -> None:
        """Write a stream to the scratch file."""
        with self.scratch.open("wb") as target:
            while data := stream.read(COPY_BYTES):
                self._budget.spend(len(data))
                self.space.spend(len(data))
                target.write(data)
                self.progress(0)

    def _members(self, members: Iterator[tuple[str, str | None, IO[bytes] | None]]) -> Iterator[Source]:
        """The members that are read, each in the scratch file. A member is its name, its fault, and its content."""
        names = set[str]()
        number = 0
        while True:
            with self._broken():
                name, fault, stream = next(members, (None, None, None))
            if name is None:
                return
            number += 1
            beginning = name[:200]
            if number > MAX_MEMBERS:
                raise Refused("archive_many", limit=MAX_MEMBERS)
            if len(name) > MAX_NAME_CHARACTERS or _UNSAFE.search(name):
                raise Refused("archive_unsafe", file=beginning)
            if fault == "archive_special":
                raise Refused(fault, file=beginning)
            if name.casefold() in names:
                raise Refused("archive_twice", file=beginning)
            names.add(name.casefold())
            form = member_format(name)
            if form is None:
                self.skipped[PurePosixPath(name).suffix.lower()[:20] or PurePosixPath(name).name[:20]] += 1
                continue
            self.num_files += 1
            self.bad_lines.file = beginning
            is_nested = form in corpus_formats.ARCHIVES or corpus_formats.parts_of(form)[1] is not None
            if fault is not None or is_nested or stream is None:
                self.bad_lines.add(BadLine(fault or "archive_nested"), None)
                continue
            with self._broken(), stream:
                self._copy(stream)
            yield Source(self.scratch, form, beginning)

    def _zip_members(self) -> Iterator[tuple[str, str | None, IO[bytes] | None]]:
        with zipfile.ZipFile(self.upload) as archive:
            for info in archive.infolist():
                mode = info.external_attr >> 16
                kind = stat.S_IFMT(mode)
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG) or mode & (stat.S_ISUID | stat.S_ISGID):
                    yield info.orig_filename, "archive_special", None
                elif info.flag_bits & 1:
                    yield info.orig_filename, "file_encrypted", None
                else:
                    self.progress(info.header_offset)
                    yield info.orig_filename, None, archive.open(info)

    def _tar_members(self, compression: str | None) -> Iterator[tuple[str, str | None, IO[bytes] | None]]:
        with decompressed(self.upload, compression) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for info in archive:
                if info.isdir():
                    continue
                is_sparse = info.issparse() or any(key.startswith("GNU.sparse.") for key in info.pax_headers)
                if not info.isfile() or is_sparse or info.mode & (stat.S_ISUID | stat.S_ISGID):
                    yield info.name, "archive_special", None
                else:
                    yield info.name, None, archive.extractfile(info)


def member_format(name: str) -> str | None:
    """The format of a member; None if none reads it, or if it is a hidden file or one that a system adds."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return None
    return corpus_formats.format_of(parts[-1]) if parts else None


@contextmanager
def decompressed(path: Path, compression: str | None) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed as they are read."""
    if compression == "gz":
        with gzip.open(path) as stream:
            yield stream  # type: ignore[misc]
    elif compression == "zst":
        import pyarrow  # a large library, which few uploads need

        with pyarrow.input_stream(str(path), compression="zstd", buffer_size=COPY_BYTES) as stream:
            yield stream
    else:
        with path.open("rb") as stream:
            yield stream


def check_zip(path: Path) -> None:
    """Refuse a document that is a zip file itself and would expand too much. Raises BadLine."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except BROKEN as error:
        raise BadLine("file_broken", why=str(error)[:200]) from None
    limit = max_expanded_bytes(path.stat().st_size)
    if len(members) > MAX_MEMBERS or sum(info.file_size for info in members) > limit:
        raise BadLine("file_expands_too_much", limit_bytes=limit, ratio=MAX_RATIO)
    if any(info.flag_bits & 1 for info in members):
        raise BadLine("file_encrypted")
