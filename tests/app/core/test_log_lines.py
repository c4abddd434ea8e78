"""Log entries have a bounded length, and what a client sends cannot forge one."""

import logging
import sys

from app.core.log_lines import MAX_MESSAGE, MAX_TRACEBACK, BoundedFormatter


def entry(message: str, *, with_exception: bool = False) -> str:
    info = sys.exc_info() if with_exception else None
    return BoundedFormatter().format(logging.LogRecord("web", logging.ERROR, "", 1, message, (), info))


def test_a_message_is_one_line_of_bounded_length() -> None:
    text = entry("host\n2026-01-01 INFO web: all is well\r\x1b[2J\u2028" + "x" * 100_000)
    assert len(text.splitlines()) == 1
    assert len(text) < MAX_MESSAGE + 100


def test_a_traceback_keeps_its_lines_and_loses_its_middle() -> None:
    try:
        raise ValueError("long " * 10_000)
    except ValueError:
        text = entry("failed", with_exception=True)
    assert "\nTraceback (most recent call last):\n" in text
    assert len(text) < MAX_MESSAGE + MAX_TRACEBACK + 100
