"""How fast a corpus is taken: upload over HTTP and parsing, beside what `cp` and `sync` need for the same bytes.

`PYTHONPATH=. python bench/upload.py [MEGABYTES | --smoke]`. Starts its own installation.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from bench.support import installation

ROOT = Path(__file__).parents[1]
SAMPLES = ("king-james-bible.txt", "song-lyrics.jsonl")
REPEATS = 3


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


def take(client: httpx.Client, path: Path) -> tuple[float, float]:
    """Seconds of the upload, and from its answer until the corpus is ready."""
    begin = time.perf_counter()
    with path.open("rb") as file:
        pieces = iter(lambda: file.read(1 << 20), b"")
        answer = client.post("/api/v1/corpora", params={"filename": path.name}, content=pieces)
    uploaded = time.perf_counter()
    corpus = answer.raise_for_status().json()
    while corpus["state"] == "parsing":
        time.sleep(0.02)
        corpus = client.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert corpus["state"] == "ready", corpus["problems"]
    ready = time.perf_counter()
    client.delete(f"/api/v1/corpora/{corpus['id']}").raise_for_status()
    return uploaded - begin, ready - uploaded


def measure(client: httpx.Client, path: Path) -> None:
    """Print what one file took."""
    megabytes = path.stat().st_size / 1e6
    copy = path.with_name("copy")
    plain = timed(lambda: (subprocess.run(["cp", path, copy], check=True), subprocess.run(["sync", copy], check=True)))
    repeats = [take(client, path) for _repeat in range(REPEATS)]
    upload, parse = min(uploading for uploading, _ in repeats), min(parsing for _, parsing in repeats)
    figures = {
        "file": path.name,
        "megabytes": round(megabytes),
        "cp_sync_mb_per_second": round(megabytes / plain),
        "upload_mb_per_second": round(megabytes / upload),
        "parse_mb_per_second": round(megabytes / parse),
        "upload_to_cp_sync": round(plain / upload, 2),
        "upload_and_parse_to_cp_sync": round(plain / (upload + parse), 2),
    }
    print(json.dumps(figures))


def main(megabytes: int) -> None:
    """Measure both kinds of file."""
    with TemporaryDirectory() as directory, installation.running() as (client, _data):
        for path in texts(Path(directory), megabytes):
            measure(client, path)


if __name__ == "__main__":
    if "--smoke" in sys.argv:
        REPEATS = 1
        main(1)
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
