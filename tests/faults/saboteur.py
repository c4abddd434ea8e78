"""A warm parent whose trainers read from a file, at their start, which faults to have (see trainer/failpoints.py).

`python -m tests.faults.saboteur SOCKET TEST FILE`. It takes the socket over from the worker's own warm parent, and ends
with the process TEST.
"""

import os
import sys
from pathlib import Path

from trainer import failpoints
from worker import warm


def main() -> None:
    """Be a warm parent."""
    file, genuine = Path(sys.argv.pop()), failpoints.planned

    def planned(fence: int) -> list[failpoints.Fault]:
        os.environ[failpoints.VARIABLE] = file.read_text() if file.exists() else ""
        return genuine(fence)

    failpoints.planned = planned
    warm.main()


if __name__ == "__main__":
    main()
