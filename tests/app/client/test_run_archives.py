"""Archives of runs: what was changed, cut off or renamed is named, and leaves no file."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from app.client import BrokenDownload, Client
from app.client.run_archives import verify
from app.jobs.archives.tar_stream import ArchiveFile, tar_chunks
from tests.app.client.scripted_server import answer, serving

WEIGHTS = "checkpoints/step-1-1/model.safetensors"
FILES = {"run.json": b"{}", WEIGHTS: bytes(range(256)) * 5}


def archive() -> bytes:
    entries = (ArchiveFile(name, len(content), partial(io.BytesIO, content)) for name, content in FILES.items())
    return b"".join(tar_chunks(entries, {}, 0))


def changed(content: bytes) -> bytes:
    return content.replace(bytes([7, 8, 9]), bytes([7, 8, 8]), 1)


def shortened(content: bytes) -> bytes:
    return content[:1600]


def without_manifest(content: bytes) -> bytes:
    return content[: content.rindex(b"MANIFEST.json\0")]


def renamed(content: bytes) -> bytes:
    return content.replace(b'"run.json"', b'"ran.json"')


def test_an_intact_archive_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "run.tar"
    path.write_bytes(archive())
    verify(path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (changed, f"{WEIGHTS} in the archive differs"),
        (shortened, "run.tar is not complete"),
        (without_manifest, "run.tar is not complete"),
        (renamed, "ran.json in the archive differs"),
    ],
)
def test_a_damaged_archive_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes], named: str) -> None:
    path = tmp_path / "run.tar"
    path.write_bytes(damage(archive()))
    with pytest.raises(BrokenDownload, match=named):
        verify(path)


def test_the_client_writes_an_archive(tmp_path: Path) -> None:
    with serving(answer(200, archive())) as server, Client(server.url, "ath_test") as client:
        path = client.jobs.export("j1", tmp_path / "run.tar", "all")
    assert server.requests[0].path == "/api/v1/jobs/j1/archive?checkpoints=all"
    assert path.read_bytes() == archive()


def test_a_damaged_archive_leaves_no_file(tmp_path: Path) -> None:
    damaged = serving(answer(200, changed(archive())))
    with damaged as server, Client(server.url, "ath_test") as client, pytest.raises(BrokenDownload):
        client.jobs.export("j1", tmp_path / "run.tar")
    assert list(tmp_path.iterdir()) == []
