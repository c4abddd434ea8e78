"""A fork server whose trainers read, at their start, which faults to inject from a file (trainer/fault_injection.py).

`python -m tests.faults.fault_injection SOCKET TEST FILE`. It takes over the socket of the worker's own
fork server, and exits with the process TEST.
"""

import os
import sys
from pathlib import Path

from trainer import fault_injection
from worker import fork_server


def main() -> None:
    """Run the fork server."""
    file = Path(sys.argv.pop())
    original = fault_injection.planned

    def faults_of_file(fence: int) -> list[fault_injection.Fault]:
        os.environ[fault_injection.VARIABLE] = file.read_text() if file.exists() else ""
        return original(fence)

    fault_injection.planned = faults_of_file
    fork_server.main()


if __name__ == "__main__":
    main()
