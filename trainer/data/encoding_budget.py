"""What encoding one record or prompt may cost: computing time and memory, by its size.

The kernel enforces both, whatever the code is doing: a process that exceeds its time is killed by SIGPROF, and
allocations beyond its memory fail.
"""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trainer.processes.child_limits import limit_memory

CPU_SECONDS = 1.0
MEMORY_BYTES = 256 << 20
# What long texts need beyond that, measured: a conversation of 1,000 turns takes 1 s of computing per 19 kB, as its
# template is applied for each answer, and tokens take 116 bytes of memory per byte of text.
BYTES_PER_SECOND = 10_000
MEMORY_PER_BYTE = 256


@dataclass(frozen=True)
class EncodingBudget:
    """The budget of one call."""

    cpu_seconds: float
    memory_bytes: int

    @property
    def megabytes(self) -> int:
        """The memory, for people."""
        return self.memory_bytes >> 20


def encoding_budget(num_bytes: int) -> EncodingBudget:
    """The budget for a record, a prompt or tokens of this size."""
    return EncodingBudget(CPU_SECONDS + num_bytes / BYTES_PER_SECOND, MEMORY_BYTES + MEMORY_PER_BYTE * num_bytes)


@contextmanager
def enforced(budget: EncodingBudget, base_bytes: int) -> Iterator[None]:
    """Enforce a budget on this process inside the block. `base_bytes` is the memory that it had before."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(base_bytes + budget.memory_bytes)
    signal.setitimer(signal.ITIMER_PROF, budget.cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, before)
