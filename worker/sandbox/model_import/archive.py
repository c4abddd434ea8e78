"""Extracts the files of a base model from an archive, each after a check of its name, under a limit of total bytes."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from app.base_models import names
from worker.sandbox.model_import.safetensors_scan import CHUNK_BYTES, InvalidModel

MAX_MEMBERS = 10_000
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


def unpack(directory: Path, budget: int) -> None:
    """Unpack `archive.zip` or `archive.tar` of a directory into it and remove it. Raises InvalidModel.

    Only files of known names are taken, from the top of the archive or from one folder that holds them.
    """
    for name, members in (("archive.zip", _zip_members), ("archive.tar", _tar_members)):
        archive = directory / name
        if archive.exists():
            try:
                _take(directory, members(archive), budget)
            except BROKEN as error:
                raise InvalidModel("archive_broken", why=str(error)[:200] or type(error).__name__) from None
            archive.unlink()


def _take(directory: Path, members: Iterator[tuple[str, bool, IO[bytes] | None]], budget: int) -> None:
    written, extracted = 0, set[str]()
    for number, (path, is_file, source) in enumerate(members):
        *folders, name = PurePosixPath(path).parts or (path,)
        if number >= MAX_MEMBERS:
            raise InvalidModel("archive_broken", why=f"> {MAX_MEMBERS}")
        if names.is_unsafe(name):
            raise InvalidModel("archive_unsafe", file=path[:200])
        if len(folders) > 1 or not names.is_known(name):
            continue
        if not is_file or source is None:
            raise InvalidModel("archive_link", file=path[:200])
        if name in extracted:
            raise InvalidModel("archive_twice", file=name)
        extracted.add(name)
        with source, _new(directory / name) as target:
            while data := source.read(CHUNK_BYTES):
                written += len(data)
                if written > budget:
                    raise InvalidModel("too_large", size=written, limit=budget)
                target.write(data)
    if not extracted:
        raise InvalidModel("archive_empty")


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name only once it is complete."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        yield file
    part.rename(path)


def _zip_members(path: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                is_link = info.external_attr >> 16 & 0o170000 == 0o120000
                yield info.filename, not is_link, None if is_link else archive.open(info)


def _tar_members(path: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            if not info.isdir():
                yield info.name, info.isfile(), archive.extractfile(info) if info.isfile() else None
