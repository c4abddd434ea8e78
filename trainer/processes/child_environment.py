"""What each kind of child process gets of the environment of its parent: no secret. Standard library only."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Profile = Literal["trainer", "tokenizer", "export", "validate", "download", "parse", "notice", "search", "tracker"]

_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
# Must be set before torch is imported, which reads it once. With the default, ACTIVE, threads spin while they wait:
# a step takes six to ten times as long as soon as another process needs the cores.
TORCH_IMPORT_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
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
    # What holds a tokenizer: tokenizer processes, and previews of chat templates.
    "tokenizer": _Rules(
        ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH"),
        fixed={**_OFFLINE, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    ),
    "export": _Rules(("PATH", "LANG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"), fixed=_OFFLINE),
    "validate": _Rules(fixed={**_OFFLINE, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}),
    "download": _Rules(
        (*_PROXY, *map(str.lower, _PROXY)),
        fixed={**_UTF8, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"},
    ),
    "parse": _Rules(fixed=_UTF8),
    "search": _Rules(("PATH", "LD_LIBRARY_PATH"), fixed={**_UTF8, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
    "tracker": _Rules((*_PROXY, *map(str.lower, _PROXY)), fixed={**_UTF8, "OMP_NUM_THREADS": "1"}),
    "notice": _Rules(("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"), fixed=_UTF8),
}


def child_environment(profile: Profile, **variables: str) -> dict[str, str]:
    """The environment of a child that handles other people's specs and files: no database address and no secret of
    this process, only what its profile lists and `variables`.
    """
    rules = _RULES[profile]
    return {**inherited_environment(rules.inherited, rules.prefixes), **rules.fixed, **variables}


def inherited_environment(names: Iterable[str], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment variables of this process with these names or prefixes, as the environment of a child."""
    return {name: value for name, value in os.environ.items() if name in names or name.startswith(prefixes)}
