"""Extracts the files of a base model from an archive, each after a check of its name, its size and the free space."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

from app.base_models import names
from worker.sandbox.disk_space import free_bytes
from worker.sandbox.model_import.safetensors_scan import CHUNK_BYTES, InvalidModel

MAX_MEMBERS = 10_000
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """An entry of an archive that is no folder. `refusal` is the code of a problem if it cannot be taken."""

    path: str
    num_bytes: int  # as the archive declares
    refusal: str | None
    open: Callable[[], IO[bytes] | None]

    @property
    def name(self) -> str:
        """The name without folders."""
        return PurePosixPath(self.path).name or self.path

    @property
    def is_wanted(self) -> bool:
        """Whether it is a file of a model, at the top of the archive or in one folder."""
        return len(PurePosixPath(self.path).parts) <= 2 and names.is_known(self.name)


Members = Callable[[], Iterator[Member]]


def unpack(directory: Path, budget: int, keep_free: int = 0) -> None:
    """Unpack `archive.zip` or `archive.tar` of a directory into it and remove it. Raises InvalidModel.

    Only files of known names are taken, from the top of the archive or from one folder that holds them. They may have
    `budget` bytes in total and must leave `keep_free` bytes of the disk. A failure leaves none of them.
    """
    for name, members in (("archive.zip", _zip_members), ("archive.tar", _tar_members)):
        archive = directory / name
        if archive.exists():
            extraction = _Extraction(directory, budget, keep_free)
            try:
                extraction.check(_listed(archive))
                extraction.take(members(archive))
            except BaseException as error:
                extraction.discard()
                if isinstance(error, BROKEN):
                    raise InvalidModel("archive_broken", why=str(error)[:200] or type(error).__name__) from None
                raise
            archive.unlink()


class _Extraction:
    """The files that are taken from one archive."""

    def __init__(self, directory: Path, budget: int, keep_free: int) -> None:
        self._directory, self._budget, self._keep_free = directory, budget, keep_free
        self._num_bytes = 0
        self._files: list[Path] = []

    def check(self, members: Iterator[Member]) -> None:
        """Check the names and sizes of members before anything is written. Raises InvalidModel."""
        self._reserve(sum(member.num_bytes for member in _wanted(members)))

    def take(self, members: Iterator[Member]) -> None:
        """Write the members that are wanted. Raises InvalidModel."""
        for member in _wanted(members):
            self._reserve(member.num_bytes)
            self._write(member)
        if not self._files:
            raise InvalidModel("archive_empty")

    def discard(self) -> None:
        """Remove what was written."""
        for path in self._files:
            path.unlink(missing_ok=True)
            _part(path).unlink(missing_ok=True)

    def _write(self, member: Member) -> None:
        path = self._directory / member.name
        self._files.append(path)
        source = member.open()
        assert source is not None
        with source, _part(path).open("wb") as target:
            while data := source.read(CHUNK_BYTES):
                self._reserve(len(data))
                target.write(data)
                self._num_bytes += len(data)
        _part(path).rename(path)  # it gets its name only once it is complete

    def _reserve(self, num_bytes: int) -> None:
        """Raise InvalidModel if so many bytes more exceed the budget, or what the disk has left."""
        total = self._num_bytes + num_bytes
        if total > self._budget:
            raise InvalidModel("too_large", size=total, limit=self._budget)
        require_space(self._directory, num_bytes, self._keep_free)


def require_space(directory: Path, num_bytes: int, keep_free: int) -> None:
    """Raise InvalidModel if so many bytes more would take what must stay free of the disk of a directory."""
    free = free_bytes(directory, keep_free)
    if num_bytes > free:
        raise InvalidModel("disk_full", size=num_bytes, free=free)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _wanted(members: Iterator[Member]) -> Iterator[Member]:
    """The members that are taken. Raises InvalidModel for one that no archive of a model may hold."""
    taken = set[str]()
    for number, member in enumerate(members):
        if number >= MAX_MEMBERS:
            raise InvalidModel("archive_broken", why=f"> {MAX_MEMBERS}")
        if names.is_unsafe(member.name):
            raise InvalidModel("archive_unsafe", file=member.path[:200])
        if not member.is_wanted:
            continue
        if member.refusal is not None:
            raise InvalidModel(member.refusal, file=member.path[:200])
        if member.name in taken:
            raise InvalidModel("archive_twice", file=member.name)
        taken.add(member.name)
        yield member


def _listed(archive: Path) -> Iterator[Member]:
    """The members of an archive that can be listed without decompressing it; of others none."""
    if archive.suffix == ".zip":
        yield from _zip_members(archive)
        return
    try:
        with tarfile.open(archive, "r:") as tar:
            yield from map(_tar_member, islice(iter(tar), MAX_MEMBERS + 1))
    except tarfile.ReadError:  # compressed, or broken: each member is checked as it comes
        return


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                is_link = info.external_attr >> 16 & 0o170000 == 0o120000
                yield Member(info.filename, info.file_size, "archive_link" if is_link else None, _opener(archive, info))


def _opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            if not info.isdir():
                yield _tar_member(info, archive)


def _tar_member(info: tarfile.TarInfo, archive: tarfile.TarFile | None = None) -> Member:
    refusal = None if info.isfile() else "archive_link"
    # A sparse file has any size in a few bytes, by GNU's type or by PAX headers.
    if info.issparse() or any(key.startswith("GNU.sparse.") for key in info.pax_headers):
        refusal = "archive_sparse"
    return Member(info.name, info.size, refusal, lambda: archive.extractfile(info) if archive is not None else None)
