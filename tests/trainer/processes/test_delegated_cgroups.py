"""Limits of control groups, by the kernel. They run where systemd has delegated a group to the tests, version 2:

`systemd-run --user --pipe --wait --same-dir -p Delegate=yes .venv/bin/python -m pytest FILE`.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until
from trainer.processes import cgroups
from trainer.processes.child_limits import ChildLimits, limited_command

MEGABYTE = 1 << 20
PARENT = cgroups._delegated_group()
# Each of three processes takes 60 MB: RLIMIT_DATA of 100 MB does not count them together, the group does.
THREE_TIMES_60_MB = """
import os, time
for _n in range(3):
    if os.fork() == 0:
        memory = bytearray(60 << 20)
        print("allocated", flush=True)
        time.sleep(60)
for _n in range(3):
    os.wait()
"""
FORKS = """
import os, signal, time
children = []
try:
    for _n in range(20):
        children.append(os.fork())
        if children[-1] == 0:
            time.sleep(60)
except BlockingIOError:
    print(1 + len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
"""
OWN_GROUP = "print(open('/proc/self/cgroup').read())"

pytestmark = pytest.mark.skipif(PARENT is None, reason="no control group is delegated to the tests (decision 0022)")


def run(program: str, limits: ChildLimits) -> subprocess.CompletedProcess[str]:
    command = limited_command(limits, [sys.executable, "-c", program])
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=50, check=False)


def groups() -> set[Path]:
    assert PARENT is not None
    return set(PARENT.glob("child-*"))


def test_a_child_is_in_a_group_of_its_own_below_the_delegated_one() -> None:
    before = groups()
    child = run(OWN_GROUP, ChildLimits())
    (group,) = groups() - before
    assert f"0::{str(group).removeprefix(str(cgroups.MOUNT))}\n" in child.stdout


def test_a_child_and_what_it_starts_end_together_when_they_exceed_the_memory_of_their_group() -> None:
    child = run(THREE_TIMES_60_MB, ChildLimits(memory_bytes=100 * MEGABYTE))
    assert child.returncode == -signal.SIGKILL
    assert child.stdout.count("allocated") < 3
    until(lambda: all((group / "cgroup.procs").read_text() == "" for group in groups()), 20, "all of them end")


def test_the_same_child_runs_within_a_larger_limit() -> None:
    program = THREE_TIMES_60_MB.replace("time.sleep(60)", "os._exit(0)")
    child = run(program, ChildLimits(memory_bytes=400 * MEGABYTE))
    assert (child.returncode, child.stdout.count("allocated")) == (0, 3)


def test_a_child_cannot_start_more_processes_than_its_group_may_hold() -> None:
    child = run(FORKS, ChildLimits(num_processes=5))
    assert child.stdout == "5\n"  # itself and four others, before the fifth fork fails


def test_groups_of_children_that_ended_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    run(OWN_GROUP, ChildLimits())
    before = {group for group in groups() if (group / "cgroup.procs").read_text() == ""}
    monkeypatch.setattr(cgroups, "EMPTY_SECONDS", -1.0)
    run(OWN_GROUP, ChildLimits())
    assert before
    assert not before & groups()
