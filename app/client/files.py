"""Files on this machine: sent with progress, received with progress, resumed and verified."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2

from .errors import BrokenDownload, ServerUnreachable
from .language import _
from .transport import Body, Transport

CHUNK_BYTES = 1 << 20
MAX_RESUMPTIONS = 5  # of a download in which no byte arrived in between

OnProgress = Callable[[int, int], None]  # bytes so far, bytes in all


def nothing(done: int, total: int) -> None:
    """An OnProgress that shows nothing."""


def body_of(path: Path, on_progress: OnProgress) -> Body:
    """The bytes of a file, from its beginning each time."""
    total = path.stat().st_size

    def read() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                on_progress(file.tell(), total)

    return read


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    transport: Transport, address: str, target: Path, size: int, sha256: str, on_progress: OnProgress = nothing
) -> Path:
    """Download a file of `size` bytes, verify its SHA-256 and move it to `target`, which exists only if it is intact.

    What an interrupted download left in `target`.part is continued. Raises BrokenDownload, ServerUnreachable and
    ServerProblem.
    """
    if target.exists() and target.stat().st_size == size and sha256_of(target) == sha256:
        on_progress(size, size)
        return target
    part = target.with_name(f"{target.name}.part")
    _receive(transport, address, part, size, on_progress)
    if part.stat().st_size != size or sha256_of(part) != sha256:
        part.unlink()
        raise BrokenDownload(_("{name} arrived damaged and was deleted. Download it again.", name=target.name))
    return part.replace(target)


def _receive(transport: Transport, address: str, part: Path, size: int, on_progress: OnProgress) -> None:
    """Append to a file until it has `size` bytes, with a new request each time the connection breaks."""
    resumptions = 0
    part.touch()
    while (before := part.stat().st_size) < size:
        error: Exception | None = None
        try:
            _append(transport, address, part, size, on_progress)
        except httpx2.TransportError as broken:
            error = broken
        resumptions = 0 if part.stat().st_size > before else resumptions + 1
        if resumptions > MAX_RESUMPTIONS:
            raise transport.unreachable(error) if error else ServerUnreachable(address)


def _append(transport: Transport, address: str, part: Path, size: int, on_progress: OnProgress) -> None:
    offset = part.stat().st_size
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with transport.open("GET", address, headers=headers) as response:
        continued = response.status_code == httpx2.codes.PARTIAL_CONTENT
        with part.open("ab" if continued else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                on_progress(file.tell(), size)
