"""Texts use few of a node's processors while jobs train on them, and all when none does."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.node_budget import NodeBudget, Reservation
from worker.inference import training_share
from worker.inference.training_share import TrainingShare


@pytest.fixture(autouse=True)
def budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeBudget:
    budget = NodeBudget(directory=tmp_path / "reservations", total_bytes=1000, shared_bytes=500, num_processes=4)
    monkeypatch.setattr(training_share, "node_budget", lambda: budget)
    return budget


@pytest.fixture
def training(budget: NodeBudget) -> Iterator[Reservation]:
    """What the supervisor of a job has reserved."""
    with budget.reserve(100, is_training=True) as reservation:
        yield reservation


def use(seconds: float) -> None:
    """Use processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def never() -> bool:
    raise AssertionError("there is time: nothing is asked")


def test_without_a_training_texts_never_pause(budget: NodeBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.01)
    share = TrainingShare(num_processors=1)
    with budget.reserve(100):  # of another child
        for _ in range(2):
            use(0.1)
            share.pause(never)


@pytest.mark.usefixtures("training")
def test_a_burst_is_free_and_then_texts_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.2)
    share = TrainingShare(num_processors=1)
    share.pause(never)
    use(0.25)
    answers = iter([True, False])
    share.pause(lambda: next(answers))
    assert not list(answers)


@pytest.mark.usefixtures("training")
def test_processor_time_comes_back_at_the_share_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.01)
    share = TrainingShare(num_processors=4)
    use(0.1)
    num_checks = itertools.count()
    share.pause(lambda: next(num_checks) < 1_000)
    assert 1 < next(num_checks) < 1_000  # 0.09 s at 0.24 of a second each second: about eight checks


@pytest.mark.usefixtures("training")
def test_a_model_that_was_loaded_does_not_delay_the_next_token_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.01)
    monkeypatch.setattr(training_share, "MAX_STEP_SECONDS", 0.05)
    share = TrainingShare(num_processors=4)
    use(1.0)
    num_checks = itertools.count()
    share.pause(lambda: next(num_checks) < 60)
    assert next(num_checks) < 60  # 0.05 s at 0.24 of a second each second: about four checks, not eighty


def test_texts_continue_when_the_training_ends(training: Reservation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_share, "BURST_SECONDS", 0.01)
    share = TrainingShare(num_processors=1)
    use(0.5)

    def is_wanted() -> bool:
        training.close()
        return True

    share.pause(is_wanted)
    share.pause(never)
