"""Faults on demand: nothing without the variable, and each in the attempts it is meant for."""

import math
from pathlib import Path

import pytest

from trainer import fault_injection
from trainer.fault_injection import Failpoints


def test_without_the_variable_nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fault_injection.VARIABLE, raising=False)
    assert fault_injection.planned(1) == []
    assert Failpoints(1).factor(3) == 1.0


@pytest.mark.parametrize(
    ("asked", "fence", "kinds"),
    [("nan@3", 1, ["nan"]), ("nan@3", 2, []), ("nan@3!", 2, ["nan"]), ("oom@3>1,kill@4", 2, ["oom"])],
)
def test_a_fault_belongs_to_the_first_attempt_unless_it_lasts(
    monkeypatch: pytest.MonkeyPatch, asked: str, fence: int, kinds: list[str]
) -> None:
    monkeypatch.setenv(fault_injection.VARIABLE, asked)
    assert [fault.kind for fault in fault_injection.planned(fence)] == kinds


def test_faults_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(fault_injection.VARIABLE, f"@{tmp_path / 'faults'}")
    assert fault_injection.planned(1) == []
    (tmp_path / "faults").write_text("spike@7\n")
    assert Failpoints(1).factor(7) == 100.0
    assert Failpoints(1).factor(8) == 1.0


def test_a_shortage_of_memory_ends_where_the_micro_batch_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fault_injection.VARIABLE, "oom@2>4,nan@3")
    points = Failpoints(1)
    points.reach(2, 0, 4)
    points.reach(2, 1, 8)
    with pytest.raises(MemoryError):
        points.reach(2, 0, 8)
    assert math.isnan(points.factor(3))
