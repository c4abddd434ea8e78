"""Reading a log: exact by byte offset, without control characters."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.jobs.views import logs


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[31mred\x1b[0m\n", "red\n"),
        ("\x1b]0;title\x07text\n", "text\n"),
        ("10%\r50%\r100%\nnext\n", "100%\nnext\n"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("a\x00b\x07c\td\n", "abc\td\n"),
        ("moon \u202eback\n", "moon back\n"),
        ("深度学习\n", "深度学习\n"),
    ],
)
def test_terminal_escape_sequences_are_removed_from_a_log(printed: str, shown: str) -> None:
    assert logs.clean(printed) == shown


def test_a_long_line_is_cleaned_in_linear_time() -> None:
    started = time.process_time()
    assert logs.clean("a" * 200_000) == "a" * 200_000
    assert time.process_time() - started < 1


def read_all(path: Path, *, is_complete: bool) -> str:
    text, offset = "", 0
    while True:
        chunk = logs.read(path, offset, is_complete=is_complete)
        if chunk.next_offset == offset:
            return text
        text, offset = text + chunk.text, chunk.next_offset


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cf")), max_size=300), max_size=40))
@settings(max_examples=60, deadline=None)
def test_chunks_together_are_the_complete_log(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("log") / "log.txt"
    text = "".join(f"{line}\n" for line in lines)
    path.write_text(text, encoding="utf-8", newline="")
    assert read_all(path, is_complete=False) == text


def test_small_chunks_join_without_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CHUNK_BYTES", 100)
    monkeypatch.setattr(logs, "MAX_LINE_BYTES", 60)
    path = tmp_path / "log.txt"
    text = "".join(f"第 {n} 步 loss\n" for n in range(50)) + "长" * 200 + "\nend\n"
    path.write_text(text)
    assert read_all(path, is_complete=False) == text


def test_an_incomplete_line_is_omitted_until_it_is_complete_or_the_run_ends(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("one\ntw")
    chunk = logs.read(path, 0)
    assert (chunk.text, chunk.next_offset) == ("one\n", 4)
    assert logs.read(path, 4).text == ""
    assert logs.read(path, 4, is_complete=True).text == "tw"


def test_undecodable_bytes_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"ok \xff\xfe\n")
    assert logs.read(path, 0).text == "ok \ufffd\ufffd\n"


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert logs.size(path) == 0
    assert logs.read(path, 0).next_offset == 0
    assert logs.tail_offset(path) == 0
