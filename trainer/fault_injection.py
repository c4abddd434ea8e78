"""Injects faults for tests. The environment variable ATHANOR_FAULT lists them, separated by commas, or is @ and the
path of a file with the list. Without it this module does nothing.

    kind@step   in the first attempt    kind@step!   in every attempt    oom@step>n   if the micro-batch exceeds n

Kinds: nan and spike (of the loss), oom, segv, abort, raise, exit, kill, hang, spin (holds the interpreter lock), flip
(one bit of a weight, at the step from which a run resumes), full (no disk space for the checkpoint), writer (kills the
process that writes the checkpoint).
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
_PATTERN = re.compile(r"(\w+)@(\d+)(!?)(?:>(\d+))?$")


@dataclass(frozen=True)
class Fault:
    """One planned fault."""

    kind: str
    step: int
    is_lasting: bool
    above: int | None


def planned(fence: int) -> list[Fault]:
    """The faults planned for an attempt, by its fence."""
    faults = []
    listed = os.environ.get(VARIABLE, "")
    if listed.startswith("@"):  # a file, whose content can change
        path = Path(listed[1:])
        listed = path.read_text().strip() if path.exists() else ""
    for part in filter(None, listed.split(",")):
        match = _PATTERN.match(part)
        assert match, part
        fault = Fault(match[1], int(match[2]), bool(match[3]), int(match[4]) if match[4] else None)
        if fence == 1 or fault.is_lasting or fault.above is not None:
            faults.append(fault)
    return faults


class Failpoints:
    """The faults planned for one rank."""

    def __init__(self, fence: int) -> None:
        self._planned = planned(fence)

    def has(self, kind: str, step: int) -> bool:
        """Whether a fault of this kind is due at a step."""
        return any(fault.kind == kind and fault.step == step for fault in self._planned)

    def factor(self, step: int) -> float:
        """The factor to multiply the loss of a step by: NaN, 100 or 1."""
        return math.nan if self.has("nan", step) else 100.0 if self.has("spike", step) else 1.0

    def reach(self, step: int, rank: int, micro_batch: int) -> None:
        """Trigger the faults due at the beginning of a step, on the first rank."""
        for fault in self._planned if rank == 0 else ():
            if fault.step == step and (fault.above is None or micro_batch > fault.above):
                _do(fault.kind)


def _do(kind: str) -> None:
    if kind == "oom":
        raise MemoryError("injected by a test")
    if kind == "raise":
        raise RuntimeError("injected by a test")
    if kind == "exit":
        raise SystemExit(1)
    if kind == "hang":
        threading.Event().wait()
    if kind == "spin":
        while True:  # PyDLL keeps the interpreter lock, and pause() waits for a signal
            ctypes.PyDLL(None).pause()
    numbers = {"segv": signal.SIGSEGV, "abort": signal.SIGABRT, "kill": signal.SIGKILL}
    if kind in numbers:
        os.kill(os.getpid(), numbers[kind])
