"""Fault injection: no faults without the variable, and each only in its attempts."""

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
    ("listed", "fence", "kinds"),
    [("nan@3", 1, ["nan"]), ("nan@3", 2, []), ("nan@3!", 2, ["nan"]), ("oom@3>1,kill@4", 2, ["oom"])],
)
def test_a_fault_occurs_in_the_first_attempt_unless_it_lasts(
    monkeypatch: pytest.MonkeyPatch, listed: str, fence: int, kinds: list[str]
) -> None:
    monkeypatch.setenv(fault_injection.VARIABLE, listed)
    assert [fault.kind for fault in fault_injection.planned(fence)] == kinds


def test_faults_are_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(fault_injection.VARIABLE, f"@{tmp_path / 'faults'}")
    assert fault_injection.planned(1) == []
    (tmp_path / "faults").write_text("spike@7\n")
    assert Failpoints(1).factor(7) == 100.0
    assert Failpoints(1).factor(8) == 1.0


def test_an_oom_fault_spares_small_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fault_injection.VARIABLE, "oom@2>4,nan@3")
    failpoints = Failpoints(1)
    failpoints.reach(2, 0, 4)
    failpoints.reach(2, 1, 8)
    with pytest.raises(MemoryError):
        failpoints.reach(2, 0, 8)
    assert math.isnan(failpoints.factor(3))
