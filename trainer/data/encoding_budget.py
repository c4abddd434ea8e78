"""What encoding one record or prompt may cost: computing time and memory, by its size.

The kernel enforces both, whatever the code is doing: a process that exceeds its time is killed by SIGPROF, and
allocations beyond its memory fail.
"""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trainer.data.record_refused import RecordRefused
from trainer.processes.child_limits import limit_memory

CPU_SECONDS = 1.0
MEMORY_BYTES = 256 << 20
# What long texts need beyond that, measured: a conversation of 1,000 turns takes 1 s of computing per 19 kB, as its
# template is applied for each answer, and tokens take 116 bytes of memory per byte of text.
BYTES_PER_SECOND = 10_000
MEMORY_PER_BYTE = 256
TEXT_BYTES_PER_SECOND = 50_000  # of plain text, without a template: a tenth of what slow tokenizers reach, or less
MAX_WHY = 200  # characters of a library's message


@dataclass(frozen=True)
class EncodingBudget:
    """The budget of one call."""

    cpu_seconds: float
    memory_bytes: int

    @property
    def megabytes(self) -> int:
        """The memory, for people."""
        return self.memory_bytes >> 20


LOADING = EncodingBudget(cpu_seconds=60.0, memory_bytes=2 << 30)  # of a tokenizer


def encoding_budget(num_bytes: int) -> EncodingBudget:
    """The budget for a record, a prompt or tokens of this size."""
    return EncodingBudget(CPU_SECONDS + num_bytes / BYTES_PER_SECOND, MEMORY_BYTES + MEMORY_PER_BYTE * num_bytes)


def text_budget(num_bytes: int) -> EncodingBudget:
    """The budget for plain text of this size."""
    return EncodingBudget(CPU_SECONDS + num_bytes / TEXT_BYTES_PER_SECOND, encoding_budget(num_bytes).memory_bytes)


def answer_within(budget: EncodingBudget, base_bytes: int, work: Callable[[], Any]) -> dict[str, Any]:
    """What `work` returns as `result`; in place of whatever it raises, the reason as `refused`."""
    try:
        with enforced(budget, base_bytes):
            return {"result": work()}
    except RecordRefused as refused:
        return {"refused": refused.message.model_dump()}
    except MemoryError:
        return {"refused": RecordRefused("memory", megabytes=budget.megabytes).message.model_dump()}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizer library is no Exception
        code = "crash" if type(error).__name__ == "PanicException" else "template"
        return {"refused": RecordRefused(code, why=reason(error)).message.model_dump()}


def reason(error: BaseException) -> str:
    """What an error of a template or a library says, in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:MAX_WHY]


@contextmanager
def enforced(budget: EncodingBudget, base_bytes: int) -> Iterator[None]:
    """Enforce a budget on this process inside the block. `base_bytes` is the memory that it had before."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(base_bytes + budget.memory_bytes)
    try:
        with timed(budget.cpu_seconds):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def timed(cpu_seconds: float) -> Iterator[None]:
    """Enforce a computing time on this process inside the block; a block inside of it has the time of the outer one."""
    if signal.getitimer(signal.ITIMER_PROF)[0]:
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
