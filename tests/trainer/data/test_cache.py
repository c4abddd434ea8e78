"""The cache of directories: what several processes that create one entry leave."""

import errno
import fcntl
from pathlib import Path

import pytest

from trainer.data.cache import get_or_create


def test_where_locks_do_not_hold_the_first_that_finishes_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system without locks: a second process creates the entry while the first one does."""
    entry = tmp_path / "entry"

    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def create_meanwhile(path: Path) -> None:
        (path / "data").write_text("second")

    def create(path: Path) -> None:
        (path / "data").write_text("first")
        assert get_or_create(entry, create_meanwhile)
        assert (path / "data").read_text() == "first"
        (path / "more").write_text("first")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not get_or_create(entry, create)
    assert [(path.name, path.read_text()) for path in entry.iterdir()] == [("data", "second")]
    assert list(tmp_path.iterdir()) == [entry]
