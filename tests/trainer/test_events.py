"""The journal: an incomplete last line, and a disk that is full for a while."""

import errno
from pathlib import Path
from typing import Any

import pytest

from trainer import events
from trainer.events import Journal


def steps(path: Path) -> list[int]:
    return [event.step for event, _offset in events.read(path, 0) if isinstance(event, events.PointsEvent)]


def test_an_incomplete_line_is_dropped_and_numbering_continues(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    journal.points(1, loss=2.0)
    journal.close()
    with path.open("a") as file:
        file.write('{"seq": 2, "at": 1.0, "kind": "poi')
    journal = Journal(path)
    journal.points(2, loss=float("nan"))
    journal.close()
    assert [(event.seq, event.step) for event, _ in events.read(path, 0)] == [(1, 1), (2, 2)]  # type: ignore[union-attr]


class FileOnFullDisk:
    """A file that takes only `room` more bytes, as on a full disk."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        accepted = bytes(data[: self.room])
        self.room -= len(accepted)
        return int(self.file.write(accepted))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_lines_are_buffered_while_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    full = FileOnFullDisk(journal._file, room=100)
    journal._file = full  # type: ignore[assignment]
    for step in range(1, 6):
        journal.points(step, loss=1.0)
    journal.sync()
    assert steps(path) == [1]
    full.room = 10_000
    journal.points(6, loss=1.0)
    journal.close()
    assert steps(path) == [1, 2, 3, 4, 5, 6]


def test_other_write_errors_are_raised(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal._file.close()
    with pytest.raises(ValueError, match="closed"):
        journal.points(1, loss=1.0)
