"""The child process that downloads a base model from a hub.

`python -m worker.sandbox.model_import.download DIRECTORY REFERENCE ...`

HF_ENDPOINT and HF_TOKEN come by its environment, which holds nothing else that is secret. It reports by JSON lines on
standard output: {"done", "total"} in bytes, at last {"fetched": "owner/name@commit"} or {"failed": {"problems"}}.
"""

import argparse
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from app.base_models import names
from worker.sandbox.model_import.archive import require_space
from worker.sandbox.model_import.safetensors_scan import InvalidModel
from worker.sandbox.reporting import REPORT_SECONDS, report


def fetch(directory: Path, reference: str, budget: int, keep_free: int) -> str:
    """Download the supported files of a model, which must leave `keep_free` bytes of the disk.

    Returns its reference with the commit. Raises InvalidModel.
    """
    repository, _at, revision = reference.partition("@")
    disable_progress_bars()
    sizes, commit = _wanted(repository, revision or None)
    total = sum(sizes.values())
    if total > budget:
        raise InvalidModel("too_large", size=total, limit=budget)
    require_space(directory, total, keep_free)
    with _Telling(directory, total):
        snapshot_download(repository, revision=commit, local_dir=directory, allow_patterns=sorted(sizes))
    shutil.rmtree(directory / ".cache", ignore_errors=True)
    return f"{repository}@{commit}"


def _wanted(repository: str, revision: str | None) -> tuple[dict[str, int], str]:
    """The names and sizes of the files to download, and their commit."""
    info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if names.is_known(file.rfilename)}
    if not any(name.endswith(names.WEIGHTS) for name in sizes):
        raise InvalidModel("weights_missing")
    if "model.safetensors" in sizes or f"model{names.INDEX}" in sizes:  # others are the same in another layout
        sizes = {name: size for name, size in sizes.items() if name.startswith("model") or name in names.PLAIN}
    return sizes, str(info.sha)


class _Telling:
    """Reports the number of bytes in a directory as progress while the block runs."""

    def __init__(self, directory: Path, total: int) -> None:
        self._directory, self._total = directory, total
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(REPORT_SECONDS):
            report({"done": min(_num_bytes(self._directory), self._total), "total": self._total})


def _num_bytes(directory: Path) -> int:
    total = 0
    for folder, _folders, files in os.walk(directory):
        for name in files:
            path = Path(folder, name)
            total += path.stat().st_size if path.exists() else 0
    return total


def verdict(directory: Path, reference: str, budget: int, keep_free: int) -> dict[str, Any]:
    """The closing report for an error, without the library's message, which may contain addresses and tokens."""
    try:
        return {"fetched": fetch(directory, reference, budget, keep_free)}
    except InvalidModel as unsound:
        problem = unsound.problem
    except GatedRepoError:
        problem = {"code": "hub_gated", "reference": reference}
    except RevisionNotFoundError:
        problem = {"code": "hub_revision", "reference": reference}
    except RepositoryNotFoundError:
        problem = {"code": "hub_unknown", "reference": reference}
    except HfHubHTTPError as error:
        problem = {"code": "hub_refused", "reference": reference, "status": error.response.status_code}
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError, OSError, RuntimeError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
        problem = {"code": "hub_away", "endpoint": constants.ENDPOINT, "why": why}
    return {"failed": {"problems": [problem]}}


def main() -> None:
    """Download the model that the arguments name, and report the result."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("reference")
    arguments.add_argument("--budget", type=int, required=True)
    arguments.add_argument("--keep-free", type=int, required=True)
    options = arguments.parse_args()
    report(verdict(options.directory, options.reference, options.budget, options.keep_free))


if __name__ == "__main__":
    main()
