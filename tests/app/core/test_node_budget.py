"""The budget of a node: who finds room, who comes first, and what the death of a process gives back."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.core import node_budget as module
from app.core.node_budget import VARIABLE, NodeBudget, NoRoom

GB = 1 << 30
HOLD = """
import sys
from app.core.node_budget import node_budget
reservation = node_budget().reserve(int(sys.argv[1]))
print(flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def budget(tmp_path: Path) -> NodeBudget:
    """16 GiB of memory, half of it shared, and eight processes."""
    return NodeBudget(directory=tmp_path / "budget", total_bytes=16 * GB, shared_bytes=8 * GB, num_processes=8)


@pytest.fixture
def kept() -> Iterator[ExitStack]:
    """Reservations that are closed after the test."""
    with ExitStack() as stack:
        yield stack


def test_reservations_share_the_memory_until_they_are_closed(budget: NodeBudget, kept: ExitStack) -> None:
    first = budget.reserve(5 * GB)
    kept.enter_context(budget.reserve(2 * GB))
    assert budget.free_bytes() == GB
    with pytest.raises(NoRoom) as refused:
        budget.reserve(2 * GB)
    assert (refused.value.needed, refused.value.free) == (2 * GB, GB)
    first.close()
    first.close()
    kept.enter_context(budget.reserve(6 * GB))
    assert budget.free_bytes() == 0


def test_one_that_is_alone_may_take_any_amount(budget: NodeBudget, kept: ExitStack) -> None:
    kept.enter_context(budget.reserve(0))
    assert budget.free_bytes() is None
    kept.enter_context(budget.reserve(99 * GB))
    with pytest.raises(NoRoom):
        budget.reserve(1)


def test_trainings_take_what_they_need_and_leave_an_eighth(budget: NodeBudget, kept: ExitStack) -> None:
    kept.enter_context(budget.reserve(7 * GB))
    kept.enter_context(budget.reserve(6 * GB, is_training=True))
    assert budget.free_bytes() == GB  # of the half
    training = kept.enter_context(budget.reserve(9 * GB, is_training=True))
    with pytest.raises(NoRoom):
        budget.reserve(1)
    training.close()
    assert budget.free_bytes() == GB


@pytest.mark.parametrize(("of_training", "free"), [(4, 12), (12, 4), (16, 2), (99, 2)])
def test_beside_trainings_one_alone_has_what_they_leave(
    budget: NodeBudget, kept: ExitStack, of_training: int, free: int
) -> None:
    kept.enter_context(budget.reserve(of_training * GB, is_training=True))
    assert budget.free_bytes() == free * GB
    with pytest.raises(NoRoom):
        budget.reserve(free * GB + 1)
    kept.enter_context(budget.reserve(free * GB))


def test_the_number_of_processes_is_shared_except_by_trainings(budget: NodeBudget, kept: ExitStack) -> None:
    kept.enter_context(budget.reserve(GB, 100, is_training=True))
    kept.enter_context(budget.reserve(GB, 6))
    with pytest.raises(NoRoom):
        budget.reserve(GB, 3)
    kept.enter_context(budget.reserve(GB, 2))


def test_a_reservation_grows_only_into_what_is_free_and_always_shrinks(budget: NodeBudget, kept: ExitStack) -> None:
    kept.enter_context(budget.reserve(3 * GB))
    own = kept.enter_context(budget.reserve(2 * GB))
    with pytest.raises(NoRoom) as refused:
        own.resize(6 * GB, 1)
    assert (refused.value.needed, refused.value.free) == (4 * GB, 3 * GB)
    assert budget.free_bytes() == 3 * GB
    own.resize(5 * GB, 1)
    assert budget.free_bytes() == 0
    kept.enter_context(budget.reserve(16 * GB, is_training=True))
    own.resize(4 * GB, 1)
    with pytest.raises(NoRoom):
        own.resize(4 * GB, 8)


def test_the_death_of_a_process_gives_back_what_it_reserved(
    budget: NodeBudget, kept: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps(budget.model_dump(mode="json")))
    command = [sys.executable, "-c", HOLD, str(7 * GB)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(NoRoom):
            budget.reserve(2 * GB)
        child.kill()
    kept.enter_context(budget.reserve(2 * GB))
    assert len([path for path in budget.directory.iterdir() if path.name != ".lock"]) == 1


def test_who_waits_starts_when_another_ends(budget: NodeBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    other = budget.reserve(8 * GB)
    with pytest.raises(NoRoom):
        budget.wait_for(GB, seconds=0.0)
    tries = threading.Event()
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: tries.set())
    reserved: list[int] = []

    def wait() -> None:
        with budget.wait_for(GB, seconds=600) as reservation:
            reserved.append(reservation.use.memory_bytes)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert tries.wait(100)
    assert not reserved
    other.close()
    waiting.join(100)
    assert reserved == [GB]
