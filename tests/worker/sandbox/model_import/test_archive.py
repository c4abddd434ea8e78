"""Archives of base models: known files are taken under a budget, everything else is left or refused."""

import io
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from worker.sandbox.model_import import archive as module
from worker.sandbox.model_import.archive import unpack
from worker.sandbox.model_import.safetensors_scan import InvalidModel

FILES = {"config.json": b"{}", "model.safetensors": b"12345678", "notes.txt": b"left", "README.md": b"# Tiny"}


def packed(directory: Path, kind: str, files: dict[str, bytes], folder: str = "") -> Path:
    if kind == "zip":
        with zipfile.ZipFile(directory / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(folder + name, data)
        return directory
    with tarfile.open(directory / "archive.tar", "w:gz" if kind == "gz" else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return directory


def problem(directory: Path, budget: int = 1 << 20) -> dict[str, Any]:
    with pytest.raises(InvalidModel) as caught:
        unpack(directory, budget)
    return caught.value.problem


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
@pytest.mark.parametrize("folder", ["", "tiny/", "./", "/"])
def test_known_files_are_extracted_and_the_archive_is_deleted(tmp_path: Path, kind: str, folder: str) -> None:
    unpack(packed(tmp_path, kind, FILES, folder), 1 << 20)
    assert contents(tmp_path) == {name: data for name, data in FILES.items() if name != "notes.txt"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("path", ["../config.json", "../../etc/config.json", "a/b/config.json", "..\\config.json"])
def test_nothing_is_written_outside_the_directory(tmp_path: Path, kind: str, path: str) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    unpack(packed(inside, kind, {path: b"{}", "README.md": b""}), 1 << 20)
    assert {item.name for item in tmp_path.iterdir()} == {"model"}
    assert set(contents(inside)) <= {"README.md", "config.json"}


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_zip_bomb_is_stopped_at_the_size_limit(tmp_path: Path, kind: str) -> None:
    packed(tmp_path, kind, {"model.safetensors": b"\0" * (64 << 20)})
    assert problem(tmp_path, budget=1 << 20)["code"] == "too_large"
    assert sum(len(data) for data in contents(tmp_path).values()) < 2 << 20


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_tiny.py", "weights.pkl", "a.PT"])
def test_pickle_and_code_are_rejected_by_file_name(tmp_path: Path, name: str) -> None:
    assert problem(packed(tmp_path, "zip", {name: b"x"}, "tiny/")) == {"code": "archive_unsafe", "file": f"tiny/{name}"}


def test_links_are_rejected(tmp_path: Path) -> None:
    info = tarfile.TarInfo("config.json")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "archive.tar", "w") as tar:
        tar.addfile(info)
    assert problem(tmp_path) == {"code": "archive_link", "file": "config.json"}
    (tmp_path / "archive.tar").unlink()
    link = zipfile.ZipInfo("config.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert problem(tmp_path)["code"] == "archive_link"


def test_two_models_in_one_archive_are_rejected(tmp_path: Path) -> None:
    packed(tmp_path, "tar", {"a/config.json": b"{}", "b/config.json": b"{}"})
    assert problem(tmp_path) == {"code": "archive_twice", "file": "config.json"}


def test_an_archive_without_a_model_is_rejected(tmp_path: Path) -> None:
    assert problem(packed(tmp_path, "zip", {"notes.txt": b"x"})) == {"code": "archive_empty"}


@pytest.mark.parametrize("name", ["archive.zip", "archive.tar"])
@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 40, b"\x1f\x8b" + b"\0" * 40])
def test_a_broken_archive_is_reported(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert problem(tmp_path)["code"] in ("archive_broken", "archive_empty")


def sparse_tar(path: Path, form: str, size: int) -> None:
    """A tar of a sparse file: of GNU's old type, or in one of the three versions of PAX."""
    data = b"x" * 512
    info = tarfile.TarInfo("model.safetensors")
    info.size = len(data)
    tar_format = tarfile.GNU_FORMAT if form == "gnu" else tarfile.PAX_FORMAT
    if form == "gnu":
        header = bytearray(info.tobuf(tar_format))
        header[156:157] = tarfile.GNUTYPE_SPARSE
        fields = (0, 512), (size, 0), (0, 0), (0, 0)
        header[386:482] = b"".join(b"%011o\0" % number for pair in fields for number in pair)
        header[482:483] = b"\0"
        header[483:495] = b"%011o\0" % size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(bytes(header) + data + b"\0" * 10240)
        return
    headers = {
        "0.0": {"GNU.sparse.size": str(size), "GNU.sparse.numblocks": "1", "GNU.sparse.offset": "0"},
        "0.1": {"GNU.sparse.size": str(size), "GNU.sparse.map": "0,512", "GNU.sparse.name": info.name},
        "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)},
        "size only": {"GNU.sparse.realsize": str(size)},
    }[form]
    if form == "1.0":
        data = b"1\n0\n512\n".ljust(512, b"\0") + data
        info.size = len(data)
    info.pax_headers = headers
    with tarfile.open(path, "w", format=tar_format) as tar:
        tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0", "size only"])
@pytest.mark.parametrize("size", [4096, 5 * 10**9])
def test_sparse_files_are_rejected_before_anything_is_written(tmp_path: Path, form: str, size: int) -> None:
    sparse_tar(tmp_path / "archive.tar", form, size)
    assert problem(tmp_path, 10**12) == {"code": "archive_sparse", "file": "model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["archive.tar"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_declares_too_much_is_rejected_before_anything_is_written(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(tmp_path, kind, {"config.json": b"x" * 600, "README.md": b"x" * 600})
    monkeypatch.setattr(module._Extraction, "_write", None)
    assert problem(tmp_path, 1000) == {"code": "too_large", "size": 1200, "limit": 1000}


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
def test_the_files_of_an_archive_must_leave_the_reserve_free(tmp_path: Path, kind: str) -> None:
    packed(tmp_path, kind, {"config.json": b"x" * 600, "README.md": b"x" * 600})
    with pytest.raises(InvalidModel) as caught:
        unpack(tmp_path, 10**6, keep_free=2**60)
    assert caught.value.problem["code"] == "disk_full"
    assert [path.suffix for path in tmp_path.iterdir()] in ([".zip"], [".tar"])


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
@pytest.mark.parametrize("fault", ["too_large", "archive_unsafe", "write", "disk"])
def test_an_archive_that_fails_in_the_middle_leaves_nothing(
    tmp_path: Path, kind: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = "code.py" if fault == "archive_unsafe" else "model.safetensors"
    packed(tmp_path, kind, {"config.json": b"x" * 600, last: b"x" * 600})
    monkeypatch.setattr(module, "_listed", lambda _archive: iter(()))  # as if the sizes were not known before
    if fault == "write":
        monkeypatch.setattr(Path, "rename", refuse)
    if fault == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: FreeSpace(0 if list(path.glob("config*")) else 2**40))
    with pytest.raises((InvalidModel, OSError)):
        unpack(tmp_path, 1000 if fault == "too_large" else 10**6)
    assert [path.name.partition(".")[0] for path in tmp_path.iterdir()] == ["archive"]


def refuse(_path: Path, _target: Path) -> None:
    raise OSError(28, "No space left on device")


@dataclass
class FreeSpace:
    free: int
