"""Control groups of children, in directories that look like those of the kernel: this needs no delegated group."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.processes import cgroups
from trainer.processes.child_limits import ChildLimits, limited_command


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The group of a service with two processes, which systemd has delegated to it."""
    group = tmp_path / "system.slice" / "athanor.service"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("cpu memory pids\n")
    (group / "cgroup.procs").write_text("11\n12\n")
    own = tmp_path / "cgroup"
    own.write_text("1:name=systemd:/other\n0::/system.slice/athanor.service\n")
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", own)
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"1" if (path, name) == (group, "user.delegate") else b"")
    cgroups._delegated_group.cache_clear()
    yield group
    cgroups._delegated_group.cache_clear()


def contents(group: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in group.iterdir()}


def children(service: Path) -> list[Path]:
    return sorted(service.glob("child-*"))


def test_a_child_starts_in_a_group_of_its_own_with_its_limits(service: Path) -> None:
    command = limited_command(ChildLimits(memory_bytes=1 << 30, num_processes=7), [sys.executable, "-c", ""])
    (group,) = children(service)
    limits = {"memory.max": str(1 << 30), "pids.max": "7", "memory.oom.group": "1", "memory.swap.max": "0"}
    assert contents(group) == limits
    assert subprocess.run(command, check=False).returncode == 0
    assert contents(group) == {**limits, "cgroup.procs": "0"}  # how a process moves itself


def test_our_own_processes_move_to_a_leaf_before_the_controllers_are_enabled(service: Path) -> None:
    cgroups.create_group(None, 7)
    assert (service / "athanor" / "cgroup.procs").read_text() == "12"  # the last of the two
    assert (service / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (children(service)[0] / "memory.max").read_text() == "max"


def test_a_process_in_the_leaf_creates_groups_beside_it(service: Path) -> None:
    cgroups.OWN.write_text("0::/system.slice/athanor.service/athanor\n")
    group = cgroups.create_group(None, 7)
    assert group is not None
    assert group.parent == service


def test_groups_of_children_that_ended_are_removed(service: Path) -> None:
    old, new = service / "child-old", service / "child-new"
    for group in (old, new):
        group.mkdir()
    os.utime(old, (time.time() - 100, time.time() - 100))
    cgroups.create_group(None, 7)
    assert [old.exists(), new.exists()] == [False, True]


@pytest.mark.parametrize("lack", ["delegation", "controllers", "version", "rights"])
def test_without_a_delegated_group_there_is_none_for_children(
    service: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    if lack == "delegation":
        monkeypatch.setattr(os, "getxattr", lambda path, name: b"0")
    elif lack == "controllers":
        (service / "cgroup.controllers").write_text("cpu pids\n")
    elif lack == "version":
        cgroups.OWN.write_text("4:memory:/user.slice\n")
    else:
        (service / "athanor").write_text("")  # where the directory cannot be created
    command = limited_command(ChildLimits(), [sys.executable, "-c", "print(7)"])
    assert children(service) == []
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "7\n"


@pytest.mark.parametrize(("number", "is_exceeded"), [("0", False), ("2", True)])
def test_a_group_counts_processes_killed_for_want_of_memory(service: Path, number: str, is_exceeded: bool) -> None:
    group = cgroups.create_group(1 << 30, 7)
    assert group is not None
    assert not cgroups.has_exceeded_memory(str(group))  # as without such a file, or without a group
    assert not cgroups.has_exceeded_memory(None)
    (group / "memory.events").write_text(f"low 0\noom 3\noom_kill {number}\noom_group_kill 0\n")
    assert cgroups.has_exceeded_memory(str(group)) is is_exceeded
