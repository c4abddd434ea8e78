"""Archives of runs: each file is compared with the manifest that the archive ends with."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Literal

from .errors import BrokenDownload
from .language import _

CheckpointChoice = Literal["best_and_last", "all", "none"]

MANIFEST = "MANIFEST.json"
MAX_MANIFEST_BYTES = 64 << 20


def verify(path: Path) -> None:
    """Compare each file of an archive with its manifest. Raises BrokenDownload, with a sentence that names the file."""
    hashes: dict[str, str] = {}
    manifest: bytes | None = None
    try:
        with tarfile.open(path, "r|") as archive:  # read once, from its beginning to its end
            for entry in archive:
                content = archive.extractfile(entry)
                if content is None:
                    raise _different(entry.name)
                if entry.name == MANIFEST:
                    manifest = content.read(MAX_MANIFEST_BYTES)
                elif entry.name in hashes:
                    raise _different(entry.name)
                else:
                    hashes[entry.name] = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    except (tarfile.TarError, OSError, EOFError):
        raise _incomplete(path) from None
    if manifest is None:
        raise _incomplete(path)
    _compare(path, hashes, manifest)


def _compare(path: Path, hashes: dict[str, str], manifest: bytes) -> None:
    try:
        listed = {str(file["name"]): file["sha256"] for file in json.loads(manifest)["files"]}
    except (ValueError, KeyError, TypeError):
        raise _incomplete(path) from None
    for name in sorted(hashes.keys() | listed.keys()):
        if hashes.get(name) != listed.get(name):
            raise _different(name)


def _different(name: str) -> BrokenDownload:
    return BrokenDownload(_("{name} in the archive differs from its manifest. Export the job again.", name=name))


def _incomplete(path: Path) -> BrokenDownload:
    return BrokenDownload(_("The archive {name} is not complete. Export the job again.", name=path.name))
