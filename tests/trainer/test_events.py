"""The journal: its lines, a torn end, and a disk that is full for a while."""

import errno
from pathlib import Path
from typing import Any

import pytest

from trainer import events
from trainer.events import Journal


def steps(path: Path) -> list[int]:
    return [event.step for event, _offset in events.read(path, 0) if isinstance(event, events.PointsEvent)]


def test_a_torn_line_is_dropped_and_the_numbers_go_on(tmp_path: Path) -> None:
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


class Full:
    """A file on a disk that takes so many bytes and no more, until there is room again."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        return int(self.file.write(taken))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_lines_wait_while_the_disk_is_full_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    full = Full(journal._file, room=100)
    journal._file = full  # type: ignore[assignment]
    for step in range(1, 6):
        journal.points(step, loss=1.0)
    journal.sync()
    assert steps(path) == [1]
    full.room = 10_000
    journal.points(6, loss=1.0)
    journal.close()
    assert steps(path) == [1, 2, 3, 4, 5, 6]


def test_another_fault_of_the_disk_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal._file.close()
    with pytest.raises(ValueError, match="closed"):
        journal.points(1, loss=1.0)
