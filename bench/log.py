"""What it costs a training step to log: microseconds a point, beside a bare write of the same lines in the same run.

`python bench/log.py [--smoke]`. The goal is 5 microseconds of processor time a point, five series a step.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.support.arguments import IS_SMOKE
from trainer.events import Journal
from trainer.report import Reporter

STEPS, REPEATS = 20_000, 3
SERIES = 5


def reported(directory: Path) -> None:
    """All steps through the trainer's own report."""
    report = Reporter(Journal(directory / "events.jsonl"))
    for step in range(1, STEPS + 1):
        report.points(
            step,
            loss=3.1 + 1e-6 * step,
            learning_rate=1e-3,
            grad_norm=0.5 + 1e-6 * step,
            tokens_per_second=12_345.6,
            bits_per_byte=1.7,
        )
    report.close()


def written(lines: list[bytes], path: Path) -> None:
    """The same bytes, one write a step: what the system itself takes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for line in lines:
        os.write(descriptor, line)
    os.close(descriptor)


def microseconds(work: Callable[[], None]) -> float:
    """Of processor time, for each point."""
    before = time.process_time()
    work()
    return (time.process_time() - before) / STEPS / SERIES * 1e6


def main() -> None:
    """Run each a few times and print the best of each."""
    ours, bare = [], []
    for _repeat in range(REPEATS):
        with tempfile.TemporaryDirectory() as home:
            directory = Path(home)
            ours.append(microseconds(lambda: reported(directory)))  # noqa: B023 - called at once
            lines = (directory / "events.jsonl").read_bytes().splitlines(keepends=True)
            bare.append(microseconds(lambda: written(lines, directory / "bare")))  # noqa: B023
    best, limit = min(ours), min(bare)
    sys.stdout.write(f"log: {best:.2f} us a point (goal 5), {best / limit:.1f} times a bare write of {limit:.2f} us\n")


if __name__ == "__main__":
    if IS_SMOKE:
        STEPS, REPEATS = 200, 1
    main()
