"""Static files under a path with a digest of their content, so that browsers never mix two versions."""

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path

from anyio import to_thread
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.types import Scope

from app.core.header_weights import header_weights
from app.core.settings import ROOT

DIRECTORY = ROOT / "static"
COMPRESSED = {".css", ".js", ".svg"}


def digest(directory: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of all files in a directory, with their paths."""
    total = sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(directory)}\0{content}\n".encode())
    return total.hexdigest()[:12]


class ImmutableFiles(StaticFiles):
    """Files that a browser may keep for a year without asking again; text is sent compressed where it may be."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The response for a file that exists, with its caching headers."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        if not isinstance(response, FileResponse) or Path(path).suffix not in COMPRESSED:
            return response
        response.headers["Vary"] = "Accept-Encoding"
        if not _takes_gzip(Headers(scope=scope)):
            return response
        content = await to_thread.run_sync(_gzipped, Path(response.path))
        headers = {name: response.headers[name] for name in ("Cache-Control", "Content-Type", "Vary")}
        return Response(content, headers={**headers, "Content-Encoding": "gzip"})


def _takes_gzip(headers: Headers) -> bool:
    weights = header_weights(",".join(headers.getlist("Accept-Encoding")))
    return weights.get("gzip", weights.get("*", 0)) > 0


@cache
def _gzipped(path: Path) -> bytes:
    """A file compressed, once for all requests."""
    return gzip.compress(path.read_bytes(), mtime=0)


STATIC_PATH = f"/static/{digest(DIRECTORY)}"
