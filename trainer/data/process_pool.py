"""Several server processes that work at the same time, for one answer after another. Imports no torch."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from trainer.data.server_process import ServerProcess

MAX_PROCESSES = 8  # each takes 0.1 to 0.4 GB of memory
VARIABLE = "ATHANOR_MAX_ENCODERS"  # for a process that may start fewer

P = TypeVar("P", bound=ServerProcess)
T = TypeVar("T")
R = TypeVar("R")


def num_processes(num_batches: int) -> int:
    """How many processes to start for so many batches."""
    most = int(os.environ.get(VARIABLE, MAX_PROCESSES))
    return max(1, min(len(os.sched_getaffinity(0)), most, num_batches))


class ProcessPool(Generic[P]):
    """So many processes, each with a thread that waits for it."""

    def __init__(self, start: Callable[[], P], count: int) -> None:
        self._processes = [start() for _ in range(count)]
        for process in self._processes[1:]:
            process.deaths = self._processes[0].deaths  # so that their limit does not depend on the number of cores
        self._idle: SimpleQueue[P] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, work: Callable[[P], R]) -> R:
        """What `work` makes of a process."""
        process = self._idle.get()
        try:
            return work(process)
        finally:
            self._idle.put(process)

    def map(self, work: Callable[[P, T], R], batches: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Each batch with what `work` makes of it, in their order. Few are taken in advance."""
        pending: deque[tuple[T, Future[R]]] = deque()
        for batch in batches:
            pending.append((batch, self._threads.submit(self._run, work, batch)))
            if len(pending) > len(self._processes):
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()

    def _run(self, work: Callable[[P, Any], R], batch: Any) -> R:
        return self.call(lambda process: work(process, batch))

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        for process in self._processes:
            process.stop()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()
