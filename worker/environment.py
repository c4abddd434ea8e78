"""The environment, sockets and lock files that a node shares with the processes it starts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from app.core.processes import inherited_environment
from app.core.settings import run_directory
from trainer.launch.environment import TORCH_IMPORT_ENVIRONMENT

Profile = Literal["trainer", "export", "validate", "download", "parse"]

_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_UTF8 = {"PYTHONUTF8": "1"}
_OFFLINE = {**_UTF8, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class _Rules:
    """What a kind of child gets of this process's environment, and what is set for it."""

    inherited: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    fixed: dict[str, str] = field(default_factory=dict)


_RULES: dict[Profile, _Rules] = {
    # Gangs, the fork server and the inference process.
    "trainer": _Rules(
        (
            *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV"),
            *("LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES"),
        ),
        ("NCCL_", "CUDA_", "TORCH_"),
        {**_OFFLINE, **TORCH_IMPORT_ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
    ),
    "export": _Rules(("PATH", "LANG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"), fixed=_OFFLINE),
    "validate": _Rules(fixed={**_OFFLINE, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}),
    "download": _Rules(
        (*_PROXY, *map(str.lower, _PROXY)),
        fixed={**_UTF8, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"},
    ),
    "parse": _Rules(fixed=_UTF8),
}


def child_environment(profile: Profile, **variables: str) -> dict[str, str]:
    """The environment of a child that handles other people's specs and files: no database address and no secret of
    this process, only what its profile lists and `variables`.
    """
    rules = _RULES[profile]
    return {**inherited_environment(rules.inherited, rules.prefixes), **rules.fixed, **variables}


def fork_server_socket() -> Path:
    """Where the fork server of this node listens."""
    return run_directory() / "fork_server.sock"


def gpu_lock(uuid: str) -> Path:
    """The file that is locked while any process of an attempt may use this GPU."""
    directory = run_directory() / "gpus"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / f"{uuid}.lock"
