"""A hub of models and data sets on localhost, with the endpoints that the client library huggingface_hub uses."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class ModelHub:
    """The directories of its models and data sets by name, which of them are gated, and the requests that it received.

    `intercept` answers a request in place of the hub if it returns True; `entries` are listed besides the files of a
    data set, `page_size` of them on a page.
    """

    models: dict[str, Path]
    datasets: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    intercept: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False
    entries: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 1000
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, authorization
    endpoint: str = ""

    def paths(self) -> list[str]:
        return [path for _method, path, _token in self.requests]


@contextmanager
def serving(models: dict[str, Path], datasets: dict[str, Path] | None = None) -> Iterator[ModelHub]:
    """A running hub with these models and data sets, by name."""
    hub = ModelHub(models, datasets or {})
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
        if self.hub.intercept(self):
            return None
        if path.startswith(("/api/datasets/", "/datasets/")):
            return self._answer_dataset(path)
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name in self.hub.gated and self.headers.get("authorization") is None:
            return self._refuse(403, "GatedRepo")
        if name not in self.hub.models:
            return self._refuse(401, "RepoNotFound")
        directory = self.hub.models[name]
        if path.startswith("/api/models"):
            if rest[:1] == ["revision"] and rest[1] not in ("main", "v1", COMMIT):
                return self._refuse(404, "RevisionNotFound")
            if rest[:1] == ["tree"]:
                return self._send(200, json.dumps(_tree(directory)).encode())
            return self._send(200, json.dumps(_info(name, directory)).encode())
        assert rest[:2] == ["resolve", COMMIT], path
        return self._send_file(directory / "/".join(rest[2:]))

    def _answer_dataset(self, path: str) -> None:
        parts = path.partition("/datasets/")[2].split("/")
        name, (verb, revision), folder = "/".join(parts[:2]), parts[2:4], unquote("/".join(parts[4:]))
        if name in self.hub.gated and verb == "resolve":  # the list of its files is public
            return self._refuse(401, "GatedRepo")
        if name not in self.hub.datasets:
            return self._refuse(401, "RepoNotFound")
        directory = self.hub.datasets[name]
        if verb == "revision":
            if unquote(revision) not in ("main", "refs/convert/parquet", COMMIT):
                return self._refuse(404, "RevisionNotFound")
            return self._send(200, json.dumps({"_id": "1", "id": name, "sha": COMMIT}).encode())
        assert revision == COMMIT, path
        if not (directory / folder).exists():
            return self._refuse(404, "EntryNotFound")
        if verb == "resolve":
            return self._send_file(directory / folder)
        assert (verb, urlsplit(self.path).query.partition("&")[0]) == ("tree", "recursive=true"), self.path
        entries = [*_tree(directory, folder), *self.hub.entries]
        begin = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end = begin + self.hub.page_size
        address = f"{self.hub.endpoint}{path}?recursive=true&cursor={end}"
        headers = {"Link": f'<{address}>; rel="next"'} if end < len(entries) else {}
        return self._send(200, json.dumps(entries[begin:end]).encode(), headers)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": "ask first"})

    def _send_file(self, file: Path) -> None:
        data = file.read_bytes()
        self._send(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

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


def _tree(directory: Path, folder: str = "") -> list[dict[str, Any]]:
    inside = [(file, size) for file, size in _files(directory) if file.startswith(folder)]
    folders = {str(parent) for file, _size in inside for parent in Path(file).parents} - {".", folder}
    listed = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
    return listed + [{"type": "file", "path": file, "size": size, "oid": "0" * 40} for file, size in inside]
