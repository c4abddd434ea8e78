"""The library of matrix products is measured once per node, and a resumed run keeps that of its checkpoint."""

from pathlib import Path

import pytest

from trainer.modeling import cpu_matmul
from trainer.report import Reporter
from trainer.training import matmul_choice

SILENT = Reporter(None)


@pytest.fixture(autouse=True)
def automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting decides."""
    monkeypatch.delenv(matmul_choice.VARIABLE, raising=False)


def speedup(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Let a measurement give this from now on."""
    monkeypatch.setattr(cpu_matmul, "onednn_speedup", lambda: value)


@pytest.mark.parametrize(("value", "is_chosen"), [(2.0, True), (1.2, True), (1.15, False), (0.0, False)])
def test_a_new_run_uses_onednn_if_it_is_faster(
    value: float, is_chosen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speedup(monkeypatch, value)

    assert matmul_choice.choose_onednn(tmp_path, None, SILENT) is is_chosen


def test_a_node_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speedup(monkeypatch, 2.0)
    matmul_choice.choose_onednn(tmp_path, None, SILENT)
    speedup(monkeypatch, 1.0)  # the machine is busy now

    assert matmul_choice.choose_onednn(tmp_path, None, SILENT) is True


def test_another_processor_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speedup(monkeypatch, 2.0)
    matmul_choice.choose_onednn(tmp_path, None, SILENT)
    speedup(monkeypatch, 1.0)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Another CPU\n")
    monkeypatch.setattr(matmul_choice, "CPU_INFO", tmp_path / "cpuinfo")

    assert matmul_choice.choose_onednn(tmp_path, None, SILENT) is False


@pytest.mark.parametrize("is_on", [True, False])
def test_a_resumed_run_follows_its_checkpoint(is_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speedup(monkeypatch, 1.0 if is_on else 2.0)

    assert matmul_choice.choose_onednn(tmp_path, cpu_matmul.cpu_name(is_on), SILENT) is is_on
    assert not list(tmp_path.iterdir())  # nothing was measured


def test_a_checkpoint_of_another_device_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speedup(monkeypatch, 2.0)

    assert matmul_choice.choose_onednn(tmp_path, "NVIDIA H200", SILENT) is True


@pytest.mark.parametrize(("setting", "is_on"), [("torch", False), ("onednn", True)])
def test_the_setting_decides_before_checkpoint_and_measurement(
    setting: str, is_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(matmul_choice.VARIABLE, setting)
    speedup(monkeypatch, 1.0 if is_on else 2.0)

    assert matmul_choice.choose_onednn(tmp_path, cpu_matmul.cpu_name(not is_on), SILENT) is is_on
