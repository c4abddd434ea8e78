"""How fast a corpus is taken, beside what `cp` and `sync` need for the same bytes: by tus, as the body of one request
and as a form, and parsing; and how much memory the web process takes for it.

`PYTHONPATH=. python bench/upload.py [MEGABYTES [--tus-only] | --smoke]`. Starts its own installation.
"""

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from bench.support import installation
from bench.support.arguments import IS_SMOKE, size

ROOT = Path(__file__).parents[1]
SAMPLES = ("king-james-bible.txt", "song-lyrics.jsonl")
REPEATS = 1 if IS_SMOKE else 3
PIECE_BYTES = 1 << 20

Way = Callable[[httpx.Client, Path], tuple[float, dict[str, Any]]]


def timed(work: Callable[[], object]) -> float:
    """The best of a few repeats, in seconds."""
    times = []
    for _repeat in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def texts(directory: Path, megabytes: int) -> Iterator[Path]:
    """One plain text and one file of JSON lines: the shipped corpora repeated."""
    for name in SAMPLES:
        piece = (ROOT / "app/corpora/samples" / name).read_bytes()
        path = directory / name
        with path.open("wb") as file:
            while file.tell() < megabytes * 1_000_000:
                file.write(piece)
        yield path


@dataclass(frozen=True)
class UploadReply:
    """What is needed of an answer."""

    location: str
    body: bytes


def parse_seconds(client: httpx.Client, corpus: dict[str, Any]) -> float:
    """Wait until a corpus is ready, and delete it; seconds from the answer to its upload."""
    begin = time.perf_counter()
    while corpus["state"] == "parsing":
        time.sleep(0.02)
        corpus = client.get(f"/api/v1/corpora/{corpus['id']}").json()
    seconds = time.perf_counter() - begin
    assert corpus["state"] == "ready", corpus["problems"]
    client.delete(f"/api/v1/corpora/{corpus['id']}").raise_for_status()
    return seconds


def send(client: httpx.Client, method: str, path: str, body: Any, **headers: str) -> tuple[float, UploadReply]:
    """Seconds until the answer. All ways send by the standard library, in pieces of PIECE_BYTES."""
    address = client.base_url
    connection = HTTPConnection(address.host, address.port, blocksize=PIECE_BYTES)
    own = {name: client.headers[name] for name in ("authorization", "cookie") if name in client.headers}
    begin = time.perf_counter()
    connection.request(method, path, body=body, headers={**own, **headers})
    response = connection.getresponse()
    body_of_answer = response.read()
    seconds = time.perf_counter() - begin
    assert response.status < 300, body_of_answer
    connection.close()
    return seconds, UploadReply(response.headers["Location"] or "", body_of_answer)


def by_tus(client: httpx.Client, path: Path) -> tuple[float, dict[str, Any]]:
    """One upload in one PATCH: seconds, and its corpus."""
    name = base64.b64encode(path.name.encode()).decode()
    tus = {"Tus-Resumable": "1.0.0"}
    headers = {**tus, "Upload-Length": str(path.stat().st_size), "Upload-Metadata": f"filename {name}"}
    begin = time.perf_counter()
    _seconds, created = send(client, "POST", "/api/v1/uploads", b"", **headers)
    location = created.location
    headers = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    with path.open("rb") as file:
        send(client, "PATCH", location, file, **headers, **{"Content-Length": str(path.stat().st_size)})
    seconds = time.perf_counter() - begin
    upload_id = location.rpartition("/")[2]
    answer = client.post("/api/v1/corpora/from-uploads", json={"uploads": [upload_id]}).raise_for_status()
    return seconds, answer.json()


def by_body(client: httpx.Client, path: Path) -> tuple[float, dict[str, Any]]:
    """The file as the body of one request: seconds, and its corpus."""
    with path.open("rb") as file:
        size = str(path.stat().st_size)
        seconds, answer = send(
            client, "POST", f"/api/v1/corpora?filename={path.name}", file, **{"Content-Length": size}
        )
    return seconds, json.loads(answer.body)


def by_form(client: httpx.Client, path: Path) -> tuple[float, dict[str, Any]]:
    """The file in a form (multipart/form-data): seconds, and its corpus."""
    purpose = '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\npretrain\r\n'
    file_head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    head, tail = (purpose + file_head).encode(), b"\r\n--x--\r\n"
    headers = {
        "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
        "Content-Type": "multipart/form-data; boundary=x",
    }
    with path.open("rb") as file:
        pieces = chain([head], iter(partial(file.read, PIECE_BYTES), b""), [tail])
        seconds, answer = send(client, "POST", "/v1/files", pieces, **headers)
    corpus = client.get(f"/api/v1/corpora/{json.loads(answer.body)['id'].removeprefix('file-')}").json()
    return seconds, corpus


@contextmanager
def memory_watched(client: httpx.Client) -> Iterator[Callable[[], float]]:
    """How many MB the web process has taken at most since the beginning, once the block has ended."""
    port = client.base_url.port
    sockets = psutil.net_connections("tcp")
    process = psutil.Process(next(each.pid for each in sockets if each.laddr.port == port and not each.raddr))
    before = process.memory_info().rss
    most, is_over = [before], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            most.append(max(most.pop(), process.memory_info().rss))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: (most[0] - before) / 1e6
    finally:
        is_over.set()
        thread.join()


def measure(client: httpx.Client, path: Path, ways: dict[str, Way]) -> None:
    """Print what one file took in each way: the best of the repeats."""
    megabytes = path.stat().st_size / 1e6
    copy = path.with_name("copy")
    plain = timed(lambda: (subprocess.run(["cp", path, copy], check=True), subprocess.run(["sync", copy], check=True)))
    copy.unlink()
    figures: dict[str, Any] = {"file": path.name, "megabytes": round(megabytes)}
    figures["cp_sync_mb_per_second"] = round(megabytes / plain)
    parsing: list[float] = []
    for name, way in ways.items():
        taken = []
        with memory_watched(client) as memory:
            for _repeat in range(REPEATS):
                seconds, corpus = way(client, path)
                taken.append(seconds)
                parsing.append(parse_seconds(client, corpus))
        figures[f"{name}_mb_per_second"] = round(megabytes / min(taken))
        figures[f"{name}_to_cp_sync"] = round(plain / min(taken), 2)
        figures[f"{name}_memory_mb"] = round(memory(), 1)
    figures["parse_mb_per_second"] = round(megabytes / min(parsing))
    print(json.dumps(figures))


def main(megabytes: int, ways: dict[str, Way]) -> None:
    """Measure both kinds of file."""
    with TemporaryDirectory() as directory, installation.running() as (client, _data):
        for path in texts(Path(directory), megabytes):
            measure(client, path, ways)
            path.unlink()


WAYS: dict[str, Way] = {"tus": by_tus, "body": by_body, "form": by_form}

if __name__ == "__main__":
    main(size(200, smoke=1), {"tus": by_tus} if "--tus-only" in sys.argv else WAYS)
