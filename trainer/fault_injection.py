"""Faults on demand, for tests: ATHANOR_FAULT names them, comma-separated, or @ and a file that does. Without it
nothing here does anything.

    kind@step   in the first attempt    kind@step!   in every one    oom@step>n   while the micro-batch exceeds n

Kinds: nan, spike (the loss), oom, segv, abort, raise, exit, kill, hang, spin (holds the interpreter), flip (one bit of
a weight, at the step after which a run goes on), full (the disk has no room for the checkpoint), writer (the process
that writes the checkpoint).
"""

import ctypes
import math
import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "ATHANOR_FAULT"
_FORM = re.compile(r"(\w+)@(\d+)(!?)(?:>(\d+))?$")


@dataclass(frozen=True)
class Fault:
    """One fault that is asked for."""

    kind: str
    step: int
    is_lasting: bool
    above: int | None


def planned(fence: int) -> list[Fault]:
    """The faults of this attempt."""
    found = []
    asked = os.environ.get(VARIABLE, "")
    if asked.startswith("@"):  # the name of a file that holds them, so that they can change
        path = Path(asked[1:])
        asked = path.read_text().strip() if path.exists() else ""
    for part in filter(None, asked.split(",")):
        match = _FORM.match(part)
        assert match, part
        fault = Fault(match[1], int(match[2]), bool(match[3]), int(match[4]) if match[4] else None)
        if fence == 1 or fault.is_lasting or fault.above is not None:
            found.append(fault)
    return found


class Failpoints:
    """The faults of one rank's run."""

    def __init__(self, fence: int) -> None:
        self._planned = planned(fence)

    def has(self, kind: str, step: int) -> bool:
        """Whether this fault is due."""
        return any(fault.kind == kind and fault.step == step for fault in self._planned)

    def factor(self, step: int) -> float:
        """What the loss of a step is multiplied by."""
        return math.nan if self.has("nan", step) else 100.0 if self.has("spike", step) else 1.0

    def reach(self, step: int, rank: int, micro_batch: int) -> None:
        """Do what is due at the beginning of a step, on the first rank."""
        for fault in self._planned if rank == 0 else ():
            if fault.step == step and (fault.above is None or micro_batch > fault.above):
                _do(fault.kind)


def _do(kind: str) -> None:
    if kind == "oom":
        raise MemoryError("asked for by a test")
    if kind == "raise":
        raise RuntimeError("asked for by a test")
    if kind == "exit":
        raise SystemExit(1)
    if kind == "hang":
        threading.Event().wait()
    if kind == "spin":
        while True:  # PyDLL keeps the interpreter's lock, and pause() waits for a signal
            ctypes.PyDLL(None).pause()
    numbers = {"segv": signal.SIGSEGV, "abort": signal.SIGABRT, "kill": signal.SIGKILL}
    if kind in numbers:
        os.kill(os.getpid(), numbers[kind])
