"""Processes to be killed that write and publish checkpoints forever, as a trainer and its supervisor do.

`python -m tests.faults.writers DIRECTORY` forks one for each line of its input and prints its process ID.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.faults.stack import ROOT
from trainer.run_dir import publish, write_manifest

NUM_FILES, NUM_BYTES = 6, 200_000


class Writers:
    """The process that forks the writers."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-m", "tests.faults.writers", str(directory)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def fork(self, number: int) -> int:
        """Fork a writer; returns its process ID."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def save_forever(home: Path) -> None:
    """Write, complete and publish one checkpoint after another."""
    step = 0
    while True:
        step += 1
        source = home / "attempt" / f"step-{step}"
        source.mkdir(parents=True)
        for number in range(NUM_FILES):
            (source / f"{number}.safetensors").write_bytes(os.urandom(NUM_BYTES))
        write_manifest(source, {"step": step})
        publish(source, home / "checkpoints" / f"step-{step}-1")


def main() -> None:
    """Fork a writer for each line of the input."""
    home = Path(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            save_forever(home / line.strip())
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
