"""How fast uploads of each format are parsed: megabytes a second of processor time, beside what others need to read the
same file in the same run: Python's own decoder, json and csv, and pyarrow in one thread.

`PYTHONPATH=. python bench/parse.py [MEGABYTES | --smoke]`. Bad files are as large; nobody else reads those.
"""

import csv
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.csv
import pyarrow.json

from bench.support.arguments import IS_SMOKE, size
from worker.sandbox.corpus import parse

SAMPLE = Path(__file__).parents[1] / "app/corpora/samples/king-james-bible.txt"
REPEATS = 1 if IS_SMOKE else 3

Reader = Callable[[Path], object]


def decoded(path: Path) -> None:
    """Python's decoder of UTF-8, a MiB at a time, into one file and nothing more."""
    with path.open(encoding="utf-8", newline="") as file, path.with_name("copy").open("w", newline="") as copy:
        while text := file.read(1 << 20):
            copy.write(text)


def json_lines(path: Path) -> None:
    """Python's json, a line at a time."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            json.loads(line)


def csv_rows(path: Path, delimiter: str) -> None:
    """Python's csv, a row at a time."""
    with path.open(encoding="utf-8", newline="") as file:
        for _row in csv.reader(file, delimiter=delimiter, strict=True):
            pass


def arrow_json(path: Path) -> object:
    """Pyarrow's reader of JSON lines."""
    return pyarrow.json.read_json(path, pyarrow.json.ReadOptions(use_threads=False))


def arrow_csv(path: Path, delimiter: str) -> object:
    """Pyarrow's reader of tables."""
    return pyarrow.csv.read_csv(
        path,
        pyarrow.csv.ReadOptions(use_threads=False),
        pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    )


PEERS: dict[str, dict[str, Reader]] = {
    "txt": {"decoder": decoded},
    "md": {"decoder": decoded},
    "jsonl": {"json": json_lines, "pyarrow": arrow_json},
    "json": {"json": lambda path: json.loads(path.read_bytes())},
    "csv": {"csv": lambda path: csv_rows(path, ","), "pyarrow": lambda path: arrow_csv(path, ",")},
    "tsv": {"csv": lambda path: csv_rows(path, "\t"), "pyarrow": lambda path: arrow_csv(path, "\t")},
}


def content(form: str, num_bytes: int) -> bytes:
    """A file of a format: verses as text, as records, or as rows, again and again."""
    verses = [verse for verse in SAMPLE.read_text().splitlines() if verse]
    if form in parse.TEXT_FORMATS:
        return repeated("\n".join(verses) + "\f", num_bytes)
    if form in parse.JSON_FORMATS:
        lines = [json.dumps({"prompt": verse[:20], "completion": verse}, ensure_ascii=False) for verse in verses]
        if form == "jsonl":
            return repeated("\n".join(lines) + "\n", num_bytes)
        return b"[" + repeated(",".join(lines) + ",", num_bytes).removesuffix(b",") + b"]"
    delimiter = {"csv": ",", "tsv": "\t"}[form]
    rows = [f'"{verse[:20]}"{delimiter}"{verse}"\n' for verse in verses if '"' not in verse]
    return f"prompt{delimiter}completion\n".encode() + repeated("".join(rows), num_bytes)


def repeated(part: str, num_bytes: int) -> bytes:
    """A part as often as it takes to make so many bytes, and always whole."""
    encoded = part.encode()
    return encoded * max(1, num_bytes // len(encoded))


def bad_files(num_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Files of nothing but errors, by format."""
    yield "jsonl", b"x\n" * (num_bytes // 2)
    yield "json", b"[" + b"1," * (num_bytes // 2) + b"1]"
    yield "csv", b"text,label\n" + b"a\n" * (num_bytes // 2)


def ours(form: str) -> Reader:
    """The parser that uploads go through, which also checks, stores, counts and hashes what it reads."""

    def read(path: Path) -> None:
        with suppress(parse.UnreadableCorpus):
            parse.parse(path.parent, form, None, True, lambda done: None)

    return read


def speed(read: Reader, path: Path) -> float:
    """Megabytes a second of processor time, the best of a few repeats."""
    times = []
    for _repeat in range(REPEATS):
        before = time.process_time()
        read(path)
        times.append(time.process_time() - before)
    return path.stat().st_size / 1e6 / min(times)


def main(megabytes: float) -> None:
    """Print a line of figures for each format, and one for each format's bad file."""
    num_bytes = int(megabytes * 1e6)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "upload"
        for form, peers in PEERS.items():
            path.write_bytes(content(form, num_bytes))
            figures = {"athanor": speed(ours(form), path), **{name: speed(read, path) for name, read in peers.items()}}
            say(form, figures)
        for form, data in bad_files(num_bytes):
            path.write_bytes(data)
            say(f"{form}, all bad", {"athanor": speed(ours(form), path)})


def say(title: str, figures: dict[str, float]) -> None:
    """Print the speeds of one file."""
    print(f"{title}: " + ", ".join(f"{name} {speed:.1f} MB/s" for name, speed in figures.items()))


if __name__ == "__main__":
    main(size(20.0, smoke=0.02))
