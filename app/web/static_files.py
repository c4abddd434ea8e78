"""Static files under a path with a digest of their content, so that browsers never mix two versions."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from app.core.settings import ROOT

DIRECTORY = ROOT / "static"


def digest(directory: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of all files in a directory, with their paths."""
    total = sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(directory)}\0{content}\n".encode())
    return total.hexdigest()[:12]


class ImmutableFiles(StaticFiles):
    """Files that a browser may keep for a year without asking again."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The response for a file that exists, with its caching header."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


STATIC_PATH = f"/static/{digest(DIRECTORY)}"
