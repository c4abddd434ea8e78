"""The environment, sockets and lock files that a node shares with the processes it starts."""

import os
from pathlib import Path

from app.core.settings import run_directory

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES")


_SET = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUTF8": "1",
    "PYTHONUNBUFFERED": "1",
    # Threads that wait must sleep, not spin: where the web, a database or another job wants the cores too, spinning
    # made a step six times slower. It is read once, when torch is imported, so the warm parent needs it already.
    "OMP_WAIT_POLICY": "PASSIVE",
}


_KEPT_PREFIXES = ("NCCL_", "CUDA_", "TORCH_")


def child_environment() -> dict[str, str]:
    """The environment of everything that runs other people's specs: no address, no secret, no setting of ours."""
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith(_KEPT_PREFIXES)}
    return {**kept, **_SET}


def warm_socket() -> Path:
    """Where the warm parent of this node listens."""
    return run_directory() / "warm.sock"


def gpu_lock(uuid: str) -> Path:
    """The file that is locked while any process of an attempt may use this GPU."""
    directory = run_directory() / "gpus"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / f"{uuid}.lock"
