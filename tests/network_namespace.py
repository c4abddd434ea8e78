"""Runs a command where there is no network: in a namespace whose only interface is loopback.

As a program in such a namespace, `python -m tests.network_namespace COMMAND...`, it turns loopback on and becomes the
command.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SET_FLAGS, _IS_UP = 0x8914, 1  # SIOCSIFFLAGS and IFF_UP of Linux
# As root, and as somebody who may make user namespaces: PostgreSQL does not run as root, so users stay who they are.
_WAYS = (["unshare", "--net"], ["unshare", "--user", "--map-current-user", "--keep-caps", "--net"])


def enclosed(command: list[str]) -> list[str] | None:
    """The command that runs this one without a network; None where the machine forbids such namespaces."""
    inside = [sys.executable, "-m", __name__]
    for way in _WAYS if shutil.which("unshare") else ():
        if subprocess.run([*way, *inside, "true"], cwd=ROOT, capture_output=True, check=False).returncode == 0:
            return [*way, *inside, *command]
    return None


def interfaces() -> list[str]:
    """The network interfaces of this process."""
    return [name for _index, name in socket.if_nameindex()]


def main(command: list[str]) -> None:
    """Turn loopback on, and become the command."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _IS_UP))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
