"""Signatures of checkpoints: an HMAC over the manifest, so that no attempt resumes from altered files."""

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.core import storage
from trainer import run_dir
from trainer.run_dir import MANIFEST, SIGNATURE

KEY_BYTES = 32


@dataclass(frozen=True)
class Signed:
    """The job, step and attempt of a checkpoint, as they were when it was signed."""

    job_id: str
    owner_id: str
    fence: int
    step: int


def sign(directory: Path, *, job_id: str, owner_id: str, fence: int, step: int) -> None:
    """Sign a verified checkpoint before it gets its final name. Idempotent."""
    signed = Signed(job_id, owner_id, fence, step)
    mac = _mac(signed, (directory / MANIFEST).read_bytes())
    run_dir.write_atomically(directory / SIGNATURE, json.dumps({**asdict(signed), "hmac_sha256": mac}, indent=2))


def about(directory: Path) -> Signed:
    """The signed facts of a checkpoint, without verifying its files. Raises ValueError naming the wrong file."""
    try:
        fields = json.loads((directory / SIGNATURE).read_text())
        mac = str(fields.pop("hmac_sha256"))
        signed = Signed(**fields)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise ValueError(f"{SIGNATURE} cannot be read") from None
    try:
        manifest = (directory / MANIFEST).read_bytes()
    except OSError:
        raise ValueError(f"{MANIFEST} cannot be read") from None
    if not hmac.compare_digest(mac.encode(), _mac(signed, manifest).encode()):
        raise ValueError(f"{SIGNATURE} does not fit {MANIFEST}")
    return signed


def verify(directory: Path) -> dict[str, Any]:
    """Check a checkpoint's signature, then every file, and return its manifest. Raises ValueError naming the file."""
    about(directory)
    manifest = run_dir.verify(directory)
    expected = {entry["name"] for entry in manifest["files"]} | {MANIFEST, SIGNATURE}
    present = {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}
    if strangers := present - expected:
        raise ValueError(f"{min(strangers)} is not in {MANIFEST}")
    return manifest


def _mac(signed: Signed, manifest: bytes) -> str:
    fields = json.dumps(asdict(signed), sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(_key(), fields + b"\n" + manifest, "sha256").hexdigest()  # JSON on one line holds no line feed


def key_path() -> Path:
    """The file of the signing key."""
    return storage.data() / "keys" / "checkpoints.key"


def key_sha256() -> str:
    """The SHA-256 of the signing key, by which a node knows that it sees the data directory of its installation."""
    return hashlib.sha256(_key()).hexdigest()


def _key() -> bytes:
    """The signing key of the installation, created at first use. The trainer never sees it."""
    path = key_path()
    if not path.exists():
        _create(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"keys/{path.name} does not hold {KEY_BYTES} bytes")
    return key


def _create(path: Path) -> None:
    """Create the key file atomically: of several processes that try, one succeeds, and none reads a partial key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        temporary.unlink()
    run_dir.sync_directory(path.parent)
