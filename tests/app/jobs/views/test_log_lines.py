"""Searching a log: complete, by level, and a bounded part of it at a time."""

from pathlib import Path

import pytest

from app.jobs.views import log_lines, logs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def search(
    path: Path, text: str = "", level: log_lines.LeastLevel | None = None, after: int = 0, limit: int = 50
) -> tuple[list[tuple[int, str]], int | None]:
    found = log_lines.search(path, text=text, level=level, after=after, limit=limit, is_complete=True)
    return [(line.offset, line.text) for line in found.data], None if found.next is None else int(found.next)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-12-03 05:41:19 INFO prepare", "info"),
        ("2026-12-03 05:41:19 WARNING step 7 is skipped: it diverged", "warning"),
        ("2026-12-03 05:41:19 ERROR nan_loss: loss became nan", "error"),
        ("[2026-12-03 05:41:19,123] [WARNING] [engine.py:42] no ninja", "warning"),
        ("host:1:2 [0] NCCL INFO Error is no error here", "info"),
        ("host:1:2 [0] NCCL WARN no memory", "warning"),
        ("[W1203 05:41:19.123 socket.cpp:200] connection refused", "warning"),
        ("[E1203 05:41:19.123 ProcessGroup.cpp:600] timeout", "error"),
        ("modeling.py:3195: FutureWarning: it is deprecated", "warning"),
        ("Traceback (most recent call last):", "error"),
        ("[rank0]: Traceback (most recent call last):", "error"),
        ("torch.OutOfMemoryError: CUDA out of memory", "error"),
        ("AssertionError", "error"),
        ("RuntimeError: CUDA error: no device", "error"),
        ("Fatal Python error: Segmentation fault", "error"),
        ("the error of the model falls", "info"),
        ("", "info"),
    ],
)
def test_a_line_has_the_level_of_its_logger_or_what_it_looks_like(line: str, level: str) -> None:
    assert log_lines.level_of(line) == level


def test_lines_are_found_with_their_offsets_in_upper_or_lower_case(path: Path) -> None:
    path.write_text("Schritt 1\n第 2 步 ÄRGER\nno\n\x1b[31mär\x1b[0mger\n")
    found, following = search(path, "ärger")
    assert [text for _, text in found] == ["第 2 步 ÄRGER", "ärger"]
    assert [logs.read(path, offset).text.split("\n")[0] for offset, _ in found] == ["第 2 步 ÄRGER", "ärger"]
    assert following is None


def test_levels_leave_out_what_is_below(path: Path) -> None:
    path.write_text("INFO one\nWARNING two\nERROR three\nRuntimeError: four\n[W1203 five]\n")
    assert [text for _, text in search(path, level="warning")[0]] == [
        "WARNING two",
        "ERROR three",
        "RuntimeError: four",
        "[W1203 five]",
    ]
    assert [text for _, text in search(path, level="error")[0]] == ["ERROR three", "RuntimeError: four"]
    assert search(path, "three", "error")[0] == [(21, "ERROR three")]
    assert search(path, "two", "error")[0] == []


def test_pages_together_are_all_hits_each_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CHUNK_BYTES", 300)
    monkeypatch.setattr(log_lines, "SCAN_BYTES", 1_000)
    path.write_text("".join(f"{n} {'hit' if n % 7 == 0 else 'x' * 20}\n" for n in range(1_000)))
    found: list[str] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page, following = search(path, "hit", after=after, limit=3)
        assert len(page) <= 3
        assert following is None or following > after
        found, after, pages = found + [text for _, text in page], following, pages + 1
    assert found == [f"{n} hit" for n in range(0, 1_000, 7)]
    assert pages > 20


def test_a_search_reads_a_bounded_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "SCAN_BYTES", logs.CHUNK_BYTES * 2)
    path.write_text("nothing here\n" * 100_000)
    found, following = search(path, "needle")
    assert found == []
    assert following is not None
    assert logs.CHUNK_BYTES * 2 <= following <= logs.CHUNK_BYTES * 3


def test_of_a_very_long_line_the_part_around_the_hit_is_shown(path: Path) -> None:
    path.write_text("a" * 30_000 + " needle " + "b" * 30_000 + "\nend\n")
    ((offset, text),), _ = search(path, "needle")
    assert offset == 0
    assert len(text) == log_lines.LINE_CHARACTERS + 2
    assert " needle " in text


def test_the_lines_around_a_place_are_those_of_the_log(path: Path) -> None:
    lines = [f"line {n}" for n in range(2_000)]
    path.write_text("\n".join(lines) + "\n")
    ((offset, _),), _ = search(path, "line 1500")
    around = log_lines.around(path, offset, is_complete=True).data
    assert [line.text for line in around] == lines[1480:1521]
    assert next(line.text for line in around if line.offset == offset) == "line 1500"
    assert [line.text for line in log_lines.around(path, 0, is_complete=True).data] == lines[:21]


def test_a_missing_log_has_no_lines(path: Path) -> None:
    assert search(path, "x") == ([], None)
    assert log_lines.around(path, 10, is_complete=True).data == []
