"""The sockets and lock files that a node shares with the processes it starts."""

from pathlib import Path

from app.core.settings import run_directory


def fork_server_socket() -> Path:
    """Where the fork server of this node listens."""
    return run_directory() / "fork_server.sock"


def gpu_lock(uuid: str) -> Path:
    """The file that is locked while any process of an attempt may use this GPU."""
    directory = run_directory() / "gpus"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / f"{uuid}.lock"
