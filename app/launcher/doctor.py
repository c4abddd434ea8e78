"""`athanor doctor`: checks this machine and says how to fix each problem."""

import hashlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil
import pynvml
import redis
from packaging.requirements import Requirement
from sqlalchemy.exc import SQLAlchemyError

from app.checkpoints import signature
from app.core import live, migrations, storage
from app.core.i18n import _, ngettext
from app.core.settings import settings

NEEDED_DISK_BYTES = 5 * 2**30
NEEDED_MEMORY_BYTES = 3 * 2**30
_MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@dataclass
class Finding:
    """The result of one check, as a sentence in the reader's language."""

    grade: Literal["ok", "note", "bad"]
    text: str


def run(key_sha256: str = "") -> int:
    """Print all findings. Returns the exit code: 1 if one is bad, else 0.

    On a node that joined, `key_sha256` is the SHA-256 of the key in the panel's data directory.
    """
    findings = [finding for check in CHECKS for finding in check()]
    if key_sha256:
        findings.append(data_directory(key_sha256))
    for finding in findings:
        sys.stdout.write(f"{line(finding)}\n")
    return int(any(finding.grade == "bad" for finding in findings))


def line(finding: Finding) -> str:
    """A finding as a line for the terminal."""
    return f"{_MARKS[finding.grade]}  {finding.text}"


def python() -> Iterator[Finding]:
    """The version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", f"Python {version}")


def packages() -> Iterator[Finding]:
    """The packages that pyproject.toml requires."""
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("athanor") or []]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("note", _("Athanor itself is not installed as a package. Run `make up` once."))
        return
    problems = [text for text in map(_problem, wanted) if text]
    yield from (Finding("bad", text) for text in problems)
    if not problems:
        yield Finding("ok", _("{n} packages, all in the required versions", n=len(wanted)))


def _problem(wanted: Requirement) -> str | None:
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
        return None
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return _("The package {name} is missing. Run `make up`, which installs it.", name=wanted.name)
    if wanted.specifier.contains(version, prereleases=True):
        return None
    values = {"name": wanted.name, "version": version, "wanted": str(wanted.specifier)}
    return _(
        "The package {name} is at version {version}, but {wanted} is required. Delete .venv and run `make up`.",
        **values,
    )


def disk() -> Iterator[Finding]:
    """Free space on the disk of the data directory."""
    data = settings().data.resolve()
    existing = next(path for path in (data, *data.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = _("{free:.1f} GiB free for data in {path}", free=free / 2**30, path=data)
    if free < NEEDED_DISK_BYTES:
        yield Finding("bad", text + _("; checkpoints need more. Free some, or set ATHANOR_DATA to a larger disk."))
    else:
        yield Finding("ok", text)


def memory() -> Iterator[Finding]:
    """Main memory that is available now, and the number of cores."""
    available = psutil.virtual_memory().available
    text = ngettext(
        "{free:.1f} GiB of memory available, {n} core",
        "{free:.1f} GiB of memory available, {n} cores",
        psutil.cpu_count() or 1,
        free=available / 2**30,
    )
    if available < NEEDED_MEMORY_BYTES:
        yield Finding("bad", text + _("; training needs 3 GiB. Close other programs."))
    else:
        yield Finding("ok", text)


def gpus() -> Iterator[Finding]:
    """The GPUs that the NVIDIA driver lists."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        text = _("No GPU ({why}). Small models train on the processor; larger ones need an NVIDIA driver.", why=error)
        yield Finding("note", text)
        return
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        total = pynvml.nvmlDeviceGetMemoryInfo(handle).total
        yield Finding("ok", f"GPU {index}: {pynvml.nvmlDeviceGetName(handle)}, {total / 2**30:.0f} GiB")
    pynvml.nvmlShutdown()


def compiler() -> Iterator[Finding]:
    """The C++ compiler g++, with which DeepSpeed builds its faster CPU optimizer."""
    if shutil.which("g++"):
        yield Finding("ok", _("g++ is installed"))
    else:
        yield Finding("note", _("g++ is not installed. It is optional; offloading the optimizer is slower without it."))


def servers() -> Iterator[Finding]:
    """The database and the broker that the environment names, or a note that they are embedded."""
    if not settings().database_url:
        yield Finding("ok", _("PostgreSQL: embedded, started by `athanor up`"))
    else:
        yield _database()
    if not settings().redis_url:
        yield Finding("ok", _("Valkey: embedded, started by `athanor up`"))
    else:
        yield _broker()


def _database() -> Finding:
    try:
        present = migrations.present()
    except SQLAlchemyError as error:
        why = str(error).splitlines()[0]
        return Finding("bad", _("The database cannot be reached: {why}. Check DATABASE_URL.", why=why))
    if present != migrations.newest():
        return Finding("bad", _("The database schema is of another version. Run `athanor migrate`."))
    return Finding("ok", _("The database responds and its schema is up to date"))


def _broker() -> Finding:
    try:
        live.valkey().ping()
    except redis.RedisError as error:
        return Finding("bad", _("The broker cannot be reached: {why}. Check REDIS_URL.", why=error))
    return Finding("ok", _("The broker responds"))


def data_directory(key_sha256: str) -> Finding:
    """Whether the data directory here is that of the panel, and this user may write there."""
    path = storage.data()
    try:
        is_same = hashlib.sha256(signature.key_path().read_bytes()).hexdigest() == key_sha256
        with tempfile.TemporaryFile(dir=path):
            pass
    except FileNotFoundError:
        is_same = False
    except OSError as error:
        sentence = _(
            "The data directory {path} cannot be used by user ID {uid}: {why}. Run the worker with the user ID that "
            "the files there belong to.",
            path=path,
            uid=os.getuid(),
            why=error.strerror,
        )
        return Finding("bad", sentence)
    if not is_same:
        sentence = _(
            "{path} is not the panel's data directory. Mount the panel's data directory at this path, or set "
            "ATHANOR_DATA to the path where it is mounted.",
            path=path,
        )
        return Finding("bad", sentence)
    return Finding("ok", _("{path} is the panel's data directory, and can be written to", path=path))


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (python, packages, disk, memory, gpus, compiler, servers)
