"""A gigabyte of real mixed text from its upload to its tokens: seconds, MB/s and memory of each stage.

`PYTHONPATH=. python bench/large_corpus.py [MEGABYTES | --smoke]`. Starts its own installation. The text is what is
installed on this machine: source code in several languages, documentation, data and web pages, each file a document,
none twice. It is uploaded by tus as one file of JSON lines, parsed, and tokenized by a task, with a tokenizer of
32,000 tokens that was trained on a part of it and imported. Memory is what the processes of a stage have written
(RssAnon), at most, by what they run; pages of files that they read are the kernel's to take back.
"""

import hashlib
import json
import re
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from bench.support import installation
from bench.support.arguments import IS_SMOKE, size
from bench.upload import by_tus
from trainer.data import tokenizer

MEGABYTES = size(1000.0, smoke=4.0)
VOCAB_SIZE, TRAINING_MEGABYTES = (400, 0.2) if IS_SMOKE else (32_000, 16)
PACKAGES = tuple(sysconfig.get_path(name) for name in ("purelib", "stdlib", "include"))
OTHERS = () if IS_SMOKE else ("node_modules", *PACKAGES, "/usr/include", "/usr/share", "/usr/lib")
ROOTS = ("app", "docs", *OTHERS)
TEXT = re.compile(
    r"\.(pyi?|pyx|h|hpp|cuh|c|cc|inc|js|ts|css|html|txt|md|rst|jsonl?|yaml|xml|tsv|csv|p[mlo]|pod|vim|lua|sh|cmake|sql|tex"
    r"|tcl|rb|el)"
)
MAX_FILE_BYTES = 8 << 20
LOOK_SECONDS = 0.2
GOAL_BYTES = 1 << 30  # of memory


def documents(megabytes: float) -> Iterator[str]:
    """Different texts of this machine, in an order that mixes them, up to so many megabytes."""
    paths = [path for root in ROOTS for path in Path(root).rglob("*") if TEXT.fullmatch(path.suffix)]
    paths.sort(key=lambda path: hashlib.sha256(str(path).encode()).digest())
    seen: set[bytes] = set()
    size = 0
    for path in paths:
        with suppress(OSError, UnicodeDecodeError):
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                continue
            text = path.read_text(encoding="utf-8")
            digest = hashlib.sha256(text.encode()).digest()
            if text.strip() and "\0" not in text and digest not in seen:
                seen.add(digest)
                size += len(text.encode())
                yield text
        if size >= megabytes * 1e6:
            return


def write_corpus(path: Path) -> tuple[int, int]:
    """Write JSON lines with a text each. Returns the number of texts and their bytes."""
    count = num_bytes = 0
    with path.open("w", encoding="utf-8") as file:
        for text in documents(MEGABYTES):
            count += 1
            num_bytes += len(text.encode())
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return count, num_bytes


class MemoryWatch:
    """The most memory that each kind of processes of an installation has taken, in bytes."""

    def __init__(self, client: httpx.Client) -> None:
        port = client.base_url.port
        sockets = psutil.net_connections("tcp")
        web = psutil.Process(next(each.pid for each in sockets if each.laddr.port == port and not each.raddr))
        self._root = web.parent()
        self._most: dict[str, int] = {}

    @contextmanager
    def watched(self) -> Iterator[dict[str, int]]:
        """The peaks of a block, complete when it has ended."""
        self._most = {}
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(LOOK_SECONDS):
                self._look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield self._most
        finally:
            is_over.set()
            thread.join()

    def _look(self) -> None:
        now: dict[str, int] = {}
        for process in self._root.children(recursive=True):
            with suppress(psutil.Error, OSError, StopIteration):
                name = _name(process.cmdline())
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                size = int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) << 10
                now[name] = now.get(name, 0) + size
        for name, size in now.items():
            self._most[name] = max(self._most.get(name, 0), size)


def _name(command: list[str]) -> str:
    """What a process runs: its last module, or its program; nothing once it has ended."""
    modules = [after for before, after in pairwise(command) if before == "-m"]
    return modules[-1] if modules else Path(command[0]).name if command else ""


def wait(
    look: Callable[[], dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> tuple[int, int]:
    """Wait until a row is ready. Returns how often progress, and how often the time left, was shown on the way."""
    shown = timed = 0
    while (row := look())["state"] in ("parsing", "preparing", "queued", "running"):
        progress = (task(row) or {}).get("progress")
        shown += bool(progress and progress["done"])
        timed += bool(progress and progress["seconds_left"] is not None)
        time.sleep(LOOK_SECONDS)
    assert row["state"] in ("ready", "succeeded"), row
    return shown, timed


def imported_tokenizer(client: httpx.Client, directory: Path) -> str:
    """The ID of a tokenizer that was trained on a part of the text."""
    trained = tokenizer.train_on(documents(TRAINING_MEGABYTES), VOCAB_SIZE)
    tokenizer.save(trained, directory)
    data = (directory / "tokenizer.json").read_bytes()
    parameters = {"filename": "tokenizer.json", "name": "bench", "end_of_text": "<|endoftext|>"}
    answer = client.post("/api/v1/tokenizers/import", params=parameters, content=data).raise_for_status().json()
    wait(lambda: client.get(f"/api/v1/tokenizers/{answer['id']}").json(), lambda _row: None)
    return str(answer["id"])


def print_stage(
    name: str, seconds: float, num_bytes: int, peaks: dict[str, int], shown: tuple[int, int] | None = None
) -> None:
    """One line for a stage, and one for each process that took more than 50 MB."""
    looks = "" if shown is None else f"; looks that showed progress: {shown[0]}, time left: {shown[1]}"
    print(f"{name:10} {seconds:7.1f} s {num_bytes / seconds / 1e6:7.1f} MB/s{looks}")
    for process, peak in sorted(peaks.items(), key=lambda item: -item[1]):
        if peak > 50e6:
            print(f"  {peak / 1e6:7.0f} MB  {process}{'  ABOVE 1 GiB' if peak > GOAL_BYTES else ''}")


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory() as name, installation.running() as (client, data):
        installation.wait_until_ready(client, data)
        path = Path(name) / "mixed.jsonl"
        count, num_bytes = write_corpus(path)
        print(f"{count} documents, {num_bytes / 1e6:.0f} MB of text, {path.stat().st_size / 1e6:.0f} MB in JSON lines")
        tokenizer_id = imported_tokenizer(client, Path(name) / "tokenizer")
        watch = MemoryWatch(client)

        def task(row: dict[str, Any]) -> dict[str, Any] | None:
            return client.get(f"/api/v1/tasks/{row['task_id']}").json() if row["task_id"] else None

        with watch.watched() as peaks:
            seconds, corpus = by_tus(client, path)
        print_stage("upload", seconds, num_bytes, peaks)
        with watch.watched() as peaks:
            begin = time.perf_counter()
            shown = wait(lambda: client.get(f"/api/v1/corpora/{corpus['id']}").json(), task)
            seconds = time.perf_counter() - begin
        print_stage("parse", seconds, num_bytes, peaks, shown)
        for label in ("tokenize", "again"):
            with watch.watched() as peaks:
                begin = time.perf_counter()
                spec = {"recipe": "tiny", "corpora": [corpus["id"]], "tokenizer": tokenizer_id}
                started = client.post("/api/v1/jobs/tokenize", json=spec).raise_for_status().json()
                address = f"/api/v1/tasks/{started['id']}"
                shown = wait(lambda address=address: client.get(address).json(), lambda row: row)
                seconds = time.perf_counter() - begin
            print_stage(label, seconds, num_bytes, peaks, shown)
        print(json.dumps(client.get(address).json()["result"]))


if __name__ == "__main__":
    main()
