"""Parsing takes time in proportion to the bytes, and little memory, whatever is wrong with them."""

import os
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.sandbox.corpus.bad_files import FILES
from tests.worker.sandbox.corpus.bad_shapes import SHAPES, Shape, repeated
from tests.worker.sandbox.corpus.scaling import Work, is_superlinear, processor_time
from trainer.formats import corpus_formats
from worker.sandbox.corpus import (
    columnar,
    columns,
    containers,
    decoding,
    documents,
    json_records,
    parse,
    record_schema,
    tables,
)

FORMATS = corpus_formats.ENCODED_FORMATS
SMALL = 2_000  # bytes
# LINEAR_TIME_ALL=1 measures larger files, of all formats; else one format for each reader of text.
IS_ALL = bool(os.environ.get("LINEAR_TIME_ALL"))
READERS = FORMATS if IS_ALL else ("txt", "json", "csv", "html")
LARGER_SECONDS = 1.0 if IS_ALL else 0.04  # shapes that take less are measured in larger files, too
# Bytes of what is no text, before compression: less where each byte takes longer.
FILE_SIZES = {"docx": 5_000, "parquet": 10_000, "arrow": 10_000, "zip": 5_000, "tar": 5_000, "epub": 10_000}
FRAGMENTS = (
    *('"', "\\", "[", "]", "{", "}", ",", ":", "\t", " ", "\n", "\r", "\f", "\0", "\ufeff", "a", "1", "天"),
    *('"a":', '{"text":"a"}', '{"text":"', '"messages":[', "text,label", "true", "e9", "\\ud800"),
)
ENDLESS = (
    *("blanks", "one endless line", "one endless string", "brackets never closed"),
    *("backslashes", "backslashes in a string", "a first row of many columns"),
    *("cells within quotes, without an end of the row", "keys that no record before has", "a brace and blanks"),
    *("labels that no record before has", "lines that end in CR", "byte-order marks"),
)


def parse_all(directory: Path, form: str) -> None:
    """Parse an upload and skip what is bad."""
    with suppress(parse.UnreadableCorpus):
        parse.parse(directory, form, None, True, lambda done: None)


def work(directory: Path, form: str, content: bytes, read: Callable[[Path, str], None] = parse_all) -> Work:
    """The parsing of a file."""
    path = directory / str(len(content))
    path.mkdir(exist_ok=True)
    (path / "upload").write_bytes(content)
    return lambda: read(path, form)


def takes_too_long(
    directory: Path, form: str, shape: Shape, small: int = SMALL, read: Callable[[Path, str], None] = parse_all
) -> bool:
    """Whether ten times the bytes take much more than ten times the time."""
    works = [work(directory, form, shape(size), read) for size in (small, 10 * small)]
    works[0]()  # the first time imports libraries, which would hide what is slow
    return is_superlinear(*works)


@pytest.mark.parametrize("form", FORMATS)
def test_ten_times_the_bytes_take_ten_times_the_time(tmp_path: Path, form: str) -> None:
    assert [name for name, shape in SHAPES.items() if takes_too_long(tmp_path, form, shape)] == []


@pytest.mark.parametrize("form", READERS)
def test_ten_times_the_bytes_of_a_larger_file_take_ten_times_the_time(tmp_path: Path, form: str) -> None:
    """Small quadratic terms, which the slack hides where a small file takes little more than that."""
    size = 10 * SMALL

    def is_fast(shape: Shape) -> bool:
        return processor_time(work(tmp_path, form, shape(size))) < LARGER_SECONDS

    shapes = {name: shape for name, shape in SHAPES.items() if is_fast(shape)}
    assert [name for name, shape in shapes.items() if takes_too_long(tmp_path, form, shape, size)] == []


@pytest.mark.parametrize("form", FILES)
def test_files_that_are_no_text_take_time_in_proportion(tmp_path: Path, form: str) -> None:
    small = FILE_SIZES.get(form, 30_000) * (4 if IS_ALL else 1)

    assert [name for name, shape in FILES[form].items() if takes_too_long(tmp_path, form, shape, small)] == []


# What each reader calls for each part of a file, a shape of many parts, and seconds that the first one loses.
PARTS = {
    "pdf": (documents, "_page_text", "pages", 3e-6),
    "zip": (containers, "member_format", "members", 1.5e-5),
    "xlsx": (columnar, "cell_text", "rows", 1.2e-7),
    "parquet": (columnar, "plain", "rows", 3e-8),
}


@pytest.mark.parametrize("form", PARTS)
def test_a_reader_that_takes_longer_for_each_further_part_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    module, name, shape, lost = PARTS[form]
    read, small, parts = getattr(module, name), FILE_SIZES.get(form, 30_000), 0

    def read_slowly(*arguments: Any) -> Any:
        nonlocal parts
        parts += 1
        spin(parts * lost)
        return read(*arguments)

    def parse_slowly(directory: Path, form: str) -> None:
        nonlocal parts
        parts = 0
        parse_all(directory, form)

    monkeypatch.setattr(module, name, read_slowly)
    monkeypatch.setattr("tests.worker.sandbox.corpus.scaling.TRIES", 1)
    assert takes_too_long(tmp_path, form, FILES[form][shape], small, parse_slowly)


def test_a_decompression_of_quadratic_time_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decompressed = containers.decompressed

    def slowly(path: Path, compression: str | None) -> Any:
        spin(1.5e-11 * path.stat().st_size ** 2)
        return decompressed(path, compression)

    monkeypatch.setattr(containers, "decompressed", slowly)
    monkeypatch.setattr("tests.worker.sandbox.corpus.scaling.TRIES", 1)
    assert takes_too_long(tmp_path, "txt.zst", FILES["txt.zst"]["parts one after the other"], 30_000)


def spin(lasting: float) -> None:
    """Compute for so many seconds."""
    end = time.thread_time() + lasting
    while time.thread_time() < end:
        pass


def test_each_format_has_shapes_of_bad_input() -> None:
    parts = {part for form in (*FORMATS, *FILES) for part in corpus_formats.parts_of(form) if part}
    names = (*corpus_formats.ENDINGS, *corpus_formats.ARCHIVES, *corpus_formats.COMPRESSIONS)

    assert parts == {*names}


@settings(max_examples=50)
@given(
    unit=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join),
    before=st.lists(st.sampled_from(FRAGMENTS), max_size=3).map("".join),
    form=st.sampled_from(FORMATS),
)
def test_any_repetition_takes_time_in_proportion(
    tmp_path_factory: pytest.TempPathFactory, unit: str, before: str, form: str
) -> None:
    assert not takes_too_long(tmp_path_factory.getbasetemp(), form, repeated(unit, before))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of many pieces, and limits that it exceeds."""
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 256)
    monkeypatch.setattr(json_records, "MAX_LINE_CHARACTERS", 1_000)
    monkeypatch.setattr(tables, "MAX_ROW_CHARACTERS", 1_000)
    monkeypatch.setattr(record_schema, "MAX_LABELS", 100)
    monkeypatch.setattr(record_schema, "MAX_UNUSED_KEYS", 100)
    monkeypatch.setattr(columns, "MAX_COLUMNS", 10)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("form", ["txt", "json", "csv"])
def test_what_has_no_end_is_parsed_in_little_memory(tmp_path: Path, form: str) -> None:
    parse_all_peak(tmp_path, form, SHAPES["empty lines"](SMALL))  # first uses of the interpreter
    peaks = {name: parse_all_peak(tmp_path, form, SHAPES[name](50 * SMALL)) for name in ENDLESS}

    assert {name: peak for name, peak in peaks.items() if peak > 70_000} == {}


def parse_all_peak(directory: Path, form: str, content: bytes) -> int:
    """The most memory that parsing a file needs, in bytes."""
    (directory / "upload").write_bytes(content)
    tracemalloc.start()
    try:
        parse_all(directory, form)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("form", ["json", "csv"])
def test_pieces_are_not_read_again_and_again(tmp_path: Path, form: str) -> None:
    assert [name for name in ENDLESS if takes_too_long(tmp_path, form, SHAPES[name], 10 * SMALL)] == []


CASES: list[tuple[str, str, Callable[[int], bytes], list[tuple[str, int]]]] = [
    ("csv", "a line", lambda n: b"text,label\n" + n * b"a" + b"\na,b\n", [("row_too_long", 2)]),
    (
        "csv",
        "a quote",
        lambda n: b'text,label\na,"' + n * b"b\n" + b"a,b\n",
        [("row_too_long", 2), ("row_length", 501)],
    ),
    ("csv", "the first row", lambda n: n * b"text," + b"\n", [("row_too_long", 1)]),
    ("json", "a line", lambda n: b'{"text":"a"}\n{"text":"' + n * b"a" + b'"}\n', [("line_too_long", 2)]),
]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("form", "name", "content", "expected"), CASES, ids=[f"{case[1]} in {case[0]}" for case in CASES]
)
def test_what_is_too_long_is_a_problem_with_its_line(
    tmp_path: Path, form: str, name: str, content: Callable[[int], bytes], expected: list[tuple[str, int]]
) -> None:
    (tmp_path / "upload").write_bytes(content(1_000))
    try:
        problems = parse.parse(tmp_path, form, None, True, lambda done: None)["problems"]
    except parse.UnreadableCorpus as refused:
        problems = refused.report["problems"][1:]

    assert [(problem["code"], problem["line"]) for problem in problems][: len(expected)] == expected
