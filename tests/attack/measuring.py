"""Runs an attack while the sampler measures what others notice, and holds the measurements to their bounds."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from tests.attack.attacks import Attack
from tests.attack.sampler import MAX_SECONDS, Measurements
from tests.attack.target import Target
from tests.faults.stack import ROOT, Installation, children_of
from trainer.processes.session_priority import set_session_niceness

MAX_PROBE_SECONDS = 0.1  # p99 of GET /livez
MAX_WAIT_SECONDS = 3.0  # from the submit of another user's job to its start
MAX_PROCESS_BYTES = 3 * 2**30
COLUMNS = ("health p99 ms", "health max ms", "other user s", "running s", "web MB", "largest MB")


@dataclass
class Memory:
    """The memory of the web process before and at most, and that of the largest other process, in bytes."""

    web_before: int = 0
    web: int = 0
    largest: int = 0


class Effect:
    """What others noticed of an attack, and the memory that it took."""

    def __init__(self) -> None:
        self.measurements, self.memory = Measurements(), Memory()

    def values(self) -> dict[str, str]:
        """The cells of the table by column."""
        probes, waits = self.measurements.probes, self.measurements.waits
        if not probes or not waits:
            return {}
        cells = (
            f"{self.measurements.p99() * 1000:.0f}",
            f"{max(probes) * 1000:.0f}",
            f"{max(waits):.2f}",
            f"{max(self.measurements.runs):.1f}" if self.measurements.runs else "",
            f"{(self.memory.web - self.memory.web_before) / 1e6:+.0f}",
            f"{self.memory.largest / 1e6:.0f}",
        )
        return dict(zip(COLUMNS, cells, strict=True))

    def check(self) -> None:
        """Raise AssertionError if a bound is exceeded."""
        measured = self.measurements
        assert measured.probes, "the sampler measured nothing"
        assert not measured.errors, f"{len(measured.errors)} errors of others, such as {measured.errors[0]}"
        assert measured.p99() <= MAX_PROBE_SECONDS, f"p99 of /livez is {measured.p99() * 1000:.0f} ms"
        assert max(measured.waits) <= MAX_WAIT_SECONDS, f"another user waited {max(measured.waits):.1f} s"
        assert self.memory.largest <= MAX_PROCESS_BYTES, f"a process took {self.memory.largest / 1e6:.0f} MB"


@contextmanager
def measuring(target: Target, attack: Attack) -> Iterator[Effect]:
    """Measure as long as the context is open; the effect is complete at its end."""
    effect = Effect()
    port, token = str(target.installation.port), target.bob.token
    command = [sys.executable, "-m", "tests.attack.sampler", port, token, target.bob_corpus, attack.other]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    is_over = threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(target.installation, effect.memory, is_over), daemon=True)
    # In a session of its own, which `low_priority` leaves alone.
    with subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes) as sampler:  # type: ignore[call-overload]
        watcher.start()
        try:
            assert sampler.stdout.readline() == "begin\n"
            with low_priority():
                yield effect
        finally:
            is_over.set()
            with suppress(subprocess.TimeoutExpired, ValueError):
                output, _errors = sampler.communicate(timeout=3 * MAX_SECONDS)
                effect.measurements = Measurements(**json.loads(output))
            sampler.kill()
            watcher.join(5)


@contextmanager
def low_priority() -> Iterator[None]:
    """Let the thread of the attack yield to the installation, as if it ran on another machine.

    Its whole session yields. Without the right to raise it again, the priority stays low.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, before + 10)
    try:
        set_session_niceness(10)
        yield
    finally:
        set_session_niceness(0)
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def watch_memory(installation: Installation, memory: Memory, is_over: threading.Event) -> None:
    """Look at the memory of the installation's processes four times a second."""
    web = installation.programs["web"].process
    memory.web_before = memory.web = resident(web.pid) if web else 0
    while not is_over.wait(0.25):
        memory.web = max(memory.web, resident(web.pid) if web else 0)
        others = [resident(process.pid) for process in processes(installation) if web and process.pid != web.pid]
        memory.largest = max(memory.largest, *others, 0)


def processes(installation: Installation) -> list[psutil.Process]:
    """The programs, supervisors and fork server of an installation with their children."""
    roots = [program.process.pid for program in installation.programs.values() if program.process]
    roots += [process.pid for process in children_of(installation.home)]
    family: dict[int, psutil.Process] = {}
    for pid in roots:
        with suppress(psutil.Error):
            root = psutil.Process(pid)
            family.update({process.pid: process for process in (root, *root.children(recursive=True))})
    return list(family.values())


def resident(pid: int) -> int:
    """The resident memory of a process in bytes; 0 if it has ended."""
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0
