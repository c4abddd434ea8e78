"""Texts use few of a node's processors while jobs train on them, and all when none does."""

import fcntl
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from worker.inference import training_share
from worker.inference.training_share import TrainingShare


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "processors.lock"


@pytest.fixture
def training(lock_file: Path) -> Iterator[IO[str]]:
    """The lock of a gang, open."""
    with lock_file.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file


def use(seconds: float) -> None:
    """Use processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def never() -> bool:
    raise AssertionError("there is time: nothing is asked")


def test_without_a_training_texts_never_pause(lock_file: Path) -> None:
    share = TrainingShare(lock_file, num_processors=1)
    share._seconds = -100.0
    share.pause(never)
    share.pause(never)


@pytest.mark.usefixtures("training")
def test_a_burst_is_free_and_then_texts_wait(lock_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.2)
    share = TrainingShare(lock_file, num_processors=1)
    share.pause(never)
    use(0.25)
    answers = iter([True, False])
    share.pause(lambda: next(answers))
    assert not list(answers)


@pytest.mark.usefixtures("training")
def test_processor_time_comes_back_at_the_share_of_the_node(lock_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.01)
    share = TrainingShare(lock_file, num_processors=4)
    use(0.1)
    num_checks = itertools.count()
    share.pause(lambda: next(num_checks) < 1_000)
    assert 1 < next(num_checks) < 1_000  # 0.09 s at 0.24 of a second each second: about eight checks


def test_texts_continue_when_the_training_ends(
    training: IO[str], lock_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.01)
    share = TrainingShare(lock_file, num_processors=1)
    use(0.5)

    def is_wanted() -> bool:
        training.close()
        return True

    share.pause(is_wanted)
    share.pause(never)
