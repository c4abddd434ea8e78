"""A model hub on localhost with the endpoints that the client library huggingface_hub uses."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class ModelHub:
    """The directories of its models by name, which of them are gated, and the requests that it received."""

    models: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, authorization
    endpoint: str = ""

    def paths(self) -> list[str]:
        return [path for _method, path, _token in self.requests]


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[ModelHub]:
    """A running hub with these models, by name."""
    hub = ModelHub(models)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Do not log requests."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path, self.headers.get("authorization")))
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name in self.hub.gated and self.headers.get("authorization") is None:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask first"})
        if name not in self.hub.models:
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})
        directory = self.hub.models[name]
        if path.startswith("/api/models"):
            if rest[:1] == ["revision"] and rest[1] not in ("main", "v1", COMMIT):
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no revision"})
            if rest[:1] == ["tree"]:
                return self._send(200, json.dumps(_tree(directory)).encode())
            return self._send(200, json.dumps(_info(name, directory)).encode())
        assert rest[:2] == ["resolve", COMMIT], path
        data = (directory / "/".join(rest[2:])).read_bytes()
        return self._send(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def _files(directory: Path) -> list[tuple[str, int]]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(path.relative_to(directory).as_posix(), path.stat().st_size) for path in paths]


def _info(name: str, directory: Path) -> dict[str, Any]:
    siblings = [{"rfilename": file, "size": size, "blobId": "0" * 40} for file, size in _files(directory)]
    return {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings}


def _tree(directory: Path) -> list[dict[str, Any]]:
    return [{"type": "file", "path": file, "size": size, "oid": "0" * 40} for file, size in _files(directory)]
