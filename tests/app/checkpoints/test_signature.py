"""Signatures of checkpoints: any alteration is detected and named."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.checkpoints import signature
from app.core import storage
from app.core.settings import settings
from trainer import run_dir

WHOSE = {"job_id": "06e9x1aa3kb5c7de", "owner_id": "06e9x1aa3kb5c7dd", "fence": 3, "step": 40}
SECOND = "resume/optimizer-0.safetensors"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of its own, without a key yet."""
    moved = settings().model_copy(update={"data": tmp_path / "data"})
    monkeypatch.setattr(storage, "settings", lambda: moved)
    return tmp_path / "data"


@pytest.fixture
def directory(data: Path, tmp_path: Path) -> Path:
    """A signed checkpoint with a file at the top and one in a folder."""
    path = tmp_path / "step-40-3"
    (path / "resume").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(range(64)))
    (path / SECOND).write_bytes(b"moments")
    run_dir.write_manifest(path, {"step": 40})
    signature.sign(path, **WHOSE)
    return path


def wrong(directory: Path) -> str:
    """What verify says against a checkpoint."""
    with pytest.raises(ValueError) as caught:
        signature.verify(directory)
    return str(caught.value)


def test_a_signed_checkpoint_verifies_and_names_its_owner(directory: Path) -> None:
    assert signature.about(directory) == signature.Signed(**WHOSE)
    manifest = signature.verify(directory)
    assert manifest["step"] == 40
    assert [entry["name"] for entry in manifest["files"]] == ["model.safetensors", SECOND]


def test_a_flipped_bit_anywhere_is_detected(directory: Path) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        whole = path.read_bytes()
        for position in range(len(whole)):
            altered = bytearray(whole)
            altered[position] ^= 1 << position % 8
            path.write_bytes(altered)
            with pytest.raises(ValueError, match=f"{path.relative_to(directory)}|{run_dir.SIGNATURE}"):
                signature.verify(directory)
        path.write_bytes(whole)
    signature.verify(directory)


@pytest.mark.parametrize("name", ["model.safetensors", SECOND])
def test_a_truncated_and_a_deleted_file_are_named(directory: Path, name: str) -> None:
    whole = (directory / name).read_bytes()
    (directory / name).write_bytes(whole[:-1])
    assert wrong(directory) == f"{name} differs from MANIFEST.json"
    (directory / name).unlink()
    assert wrong(directory) == f"{name} differs from MANIFEST.json"
    assert signature.about(directory).step == 40  # the signature alone does not read the files


def test_a_file_that_was_added_is_named(directory: Path) -> None:
    (directory / "resume" / "extra.pt").write_bytes(b"pickle")
    assert wrong(directory) == "resume/extra.pt is not in MANIFEST.json"


def test_an_empty_or_missing_manifest_is_detected(directory: Path) -> None:
    (directory / "MANIFEST.json").write_bytes(b"")
    assert wrong(directory) == "SIGNATURE does not fit MANIFEST.json"
    (directory / "MANIFEST.json").unlink()
    assert wrong(directory) == "MANIFEST.json cannot be read"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"files": [{}]}', '{"files": 1}', "\x00"])
def test_a_signed_manifest_without_files_is_rejected_with_a_message(directory: Path, text: str) -> None:
    (directory / "MANIFEST.json").write_text(text)
    signature.sign(directory, **WHOSE)
    assert wrong(directory) == "MANIFEST.json cannot be read"


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"hmac_sha256": "", "job_id": "j"}'])
def test_a_malformed_signature_is_rejected_with_a_message(directory: Path, text: str) -> None:
    (directory / "SIGNATURE").write_text(text)
    assert wrong(directory) == "SIGNATURE cannot be read"


@pytest.mark.parametrize("field", [*WHOSE, "hmac_sha256"])
def test_no_field_of_a_signature_can_be_changed(directory: Path, field: str) -> None:
    fields = json.loads((directory / "SIGNATURE").read_text())
    fields[field] = fields[field] + 1 if isinstance(fields[field], int) else "0" * len(fields[field])
    (directory / "SIGNATURE").write_text(json.dumps(fields))
    assert wrong(directory) == "SIGNATURE does not fit MANIFEST.json"


def test_the_signature_of_another_installation_is_rejected(directory: Path, data: Path) -> None:
    (data / "keys" / "checkpoints.key").write_bytes(bytes(32))
    assert wrong(directory) == "SIGNATURE does not fit MANIFEST.json"


def test_a_damaged_key_is_reported_and_never_replaced(directory: Path, data: Path) -> None:
    (data / "keys" / "checkpoints.key").write_bytes(b"short")
    assert wrong(directory) == "keys/checkpoints.key does not hold 32 bytes"
    assert (data / "keys" / "checkpoints.key").read_bytes() == b"short"


def test_signing_is_idempotent_and_a_manifest_never_lists_a_signature(directory: Path) -> None:
    before = (directory / "SIGNATURE").read_bytes()
    run_dir.write_manifest(directory, {"step": 40})
    signature.sign(directory, **WHOSE)
    assert (directory / "SIGNATURE").read_bytes() == before
    assert len(run_dir.verify(directory)["files"]) == 2


def test_the_key_is_private_and_created_once_under_concurrency(data: Path, directory: Path) -> None:
    key = data / "keys" / "checkpoints.key"
    key.unlink()
    with ThreadPoolExecutor(16) as racers:
        keys = set(racers.map(lambda _: signature._key(), range(64)))
    assert keys == {key.read_bytes()}
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert [path.name for path in key.parent.iterdir()] == [key.name]
