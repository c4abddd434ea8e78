"""Whether a work takes time in proportion to its size, measured on a machine that does other things, too."""

import time
from collections.abc import Callable

MOST = 25  # times as long for ten times the size: a linear work takes 10 times as long, a quadratic one 100
SLACK = 0.02  # seconds: what a busy machine charges to a process that it interrupts
TRIES = 20  # of which the fastest count; only what seems to take too long is tried so often

Work = Callable[[], object]


def processor_time(work: Work) -> float:
    """Processor time of a work of this thread, in seconds."""
    before = time.thread_time()
    work()
    return time.thread_time() - before


def is_superlinear(small: Work, large: Work) -> bool:
    """Whether a work ten times as large takes much more than ten times the time.

    After the first try the small work is done ten times, so that both last equally long: a short one alone would
    be measured in the pauses of other processes, where the long one has none.
    """
    if processor_time(large) <= MOST * processor_time(small) + SLACK:
        return False
    best = [float("inf"), float("inf")]
    for _try in range(TRIES):
        times = sum(processor_time(small) for _part in range(10)), processor_time(large)
        best = [min(pair) for pair in zip(best, times, strict=True)]
        if best[1] <= MOST / 10 * best[0] + SLACK:
            return False
    return True
