"""Limits of children: in force before their command starts, never above those of the parent, and until death."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from trainer.processes.child_limits import ChildLimits, limited_command

REPORT = """
import json, os, resource
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
names = ("RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")
limits = {name: resource.getrlimit(getattr(resource, name)) for name in names}
print(json.dumps({**limits, "no_new_privs": status["NoNewPrivs"].strip(), "nice": os.nice(0)}))
"""


def run(limits: ChildLimits, program: str) -> subprocess.CompletedProcess[str]:
    command = limited_command(limits, [sys.executable, "-c", program])
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_command_starts_under_its_limits() -> None:
    limits = ChildLimits(memory_bytes=1 << 30, cpu_seconds=9, file_bytes=1000, open_files=50, niceness=3)
    report: dict[str, Any] = json.loads(run(limits, REPORT).stdout)

    assert report == {
        "RLIMIT_DATA": [1 << 30, 1 << 30],
        "RLIMIT_CPU": [9, 14],
        "RLIMIT_FSIZE": [1000, 1000],
        "RLIMIT_NOFILE": [50, 50],
        "RLIMIT_CORE": [0, 0],
        "no_new_privs": "1",
        "nice": min(19, os.nice(0) + 3),
    }


def test_memory_and_time_beyond_the_limits_are_refused() -> None:
    greedy = run(ChildLimits(memory_bytes=256 << 20), "bytearray(512 << 20)")
    endless = run(ChildLimits(cpu_seconds=1), "while True: pass")

    assert "MemoryError" in greedy.stderr
    assert endless.returncode == -signal.SIGXCPU


def test_a_limit_of_file_sizes_cuts_no_compiled_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "imported.py").write_text("value = 1\n" * 1000)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import imported; print(imported.value)"
    for _time in range(2):  # of which the second would read what the first has written
        child = run(ChildLimits(file_bytes=100), program)
        assert (child.stdout, child.stderr) == ("1\n", "")


def test_a_child_ends_with_the_thread_that_started_it() -> None:
    children: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        command = limited_command(ChildLimits(), [sys.executable, "-c", "print(flush=True); input()"])
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # it runs
        children.append(child)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    with children[0] as child:
        assert child.wait(10) == -signal.SIGKILL
