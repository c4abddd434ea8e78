"""A warm parent whose trainers read from a file, at their start, which faults to have (see trainer/fault_injection.py).

`python -m tests.faults.saboteur SOCKET TEST FILE`. It takes the socket over from the worker's own warm parent, and ends
with the process TEST.
"""

import os
import sys
from pathlib import Path

from trainer import fault_injection
from worker import fork_server


def main() -> None:
    """Be a warm parent."""
    file, genuine = Path(sys.argv.pop()), fault_injection.planned

    def planned(fence: int) -> list[fault_injection.Fault]:
        os.environ[fault_injection.VARIABLE] = file.read_text() if file.exists() else ""
        return genuine(fence)

    fault_injection.planned = planned
    fork_server.main()


if __name__ == "__main__":
    main()
