"""Downloads and validates a base model in sandboxed children."""

import signal
import sys
from pathlib import Path
from typing import Any

from app.base_models import service
from app.core import db, disk, storage
from app.core.models import BackgroundTask, ImportedModel
from app.core.settings import settings
from trainer.data.encoding_budget import encoding_budget
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import child
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work

DOWNLOAD_MEMORY_BYTES = 1 << 30


def directory(task: BackgroundTask) -> Path:
    """The directory of the model."""
    return storage.base_model(str(task.model_id))


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Download the model if it is from the hub, then validate it. Returns the closing report."""
    with db.transaction() as session:
        model = session.get(ImportedModel, task.model_id)
    if model is None:  # deleted since
        return {}
    if model.source == "hub":
        closing = run_child(
            task, lease, "fetch", download_command(model), download_environment(model.id), download_limits()
        )
        if "fetched" not in closing:
            return closing
        with db.transaction() as session:
            service.record_download(session, model_id=model.id, reference=closing["fetched"])
    command = validation_command(model.id)
    return run_child(task, lease, "check", command, child_environment("validate"), validation_limits())


def run_child(
    task: BackgroundTask, lease: Lease, phase: str, command: list[str], env: dict[str, str], limits: ChildLimits
) -> Report:
    """Run the child of a phase and return its closing report."""
    return child.run(
        command,
        env,
        lease,
        limits=limits,
        directory=directory(task),
        codes=EndCodes("importer_died", "out_of_memory", are_problems=True),
        phase=phase,
        memory_bytes=settings().import_memory_bytes,
        explain=explain,
    )


def explain(status: int) -> dict[str, Any] | None:
    """The problem of a child that the budget of tokenizer_checks.py has ended."""
    seconds = round(encoding_budget(0).cpu_seconds)
    return {"code": "tokenizer_slow_text", "seconds": seconds} if status == -signal.SIGPROF else None


def validation_limits() -> ChildLimits:
    """The limits of the child that validates. It lowers that of memory itself, as it maps files of any size."""
    memory, budget = settings().import_memory_bytes, settings().max_model_bytes
    return ChildLimits(memory_bytes=memory + budget, cpu_seconds=settings().parse_cpu_seconds, file_bytes=budget)


def download_limits() -> ChildLimits:
    """The limits of the child that downloads."""
    return ChildLimits(memory_bytes=DOWNLOAD_MEMORY_BYTES, file_bytes=settings().max_model_bytes)


def validation_command(model_id: str) -> list[str]:
    """The command line of the child that validates."""
    return [
        sys.executable,
        "-m",
        "worker.sandbox.model_import.validate",
        str(storage.base_model(model_id)),
        *space(),
        f"--memory={settings().import_memory_bytes}",
    ]


def download_command(model: ImportedModel) -> list[str]:
    """The command line of the child that downloads."""
    path = str(storage.base_model(model.id))
    return [sys.executable, "-m", "worker.sandbox.model_import.download", path, str(model.reference), *space()]


def space() -> list[str]:
    """The arguments of both children that limit what they may write."""
    return [f"--budget={settings().max_model_bytes}", f"--keep-free={disk.kept_free()}"]


def download_environment(model_id: str) -> dict[str, str]:
    """The environment of the child that downloads: the hub's address, proxies and token."""
    cache = str(storage.base_model(model_id) / ".cache")  # not the home of the user that runs the worker, nor its token
    env = child_environment("download", HF_ENDPOINT=settings().hf_endpoint, HF_HOME=cache)
    token = settings().hf_token.get_secret_value()
    return {**env, "HF_TOKEN": token} if token else env


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove the directory if the model was deleted meanwhile."""
    with db.transaction() as session:
        is_deleted = session.get(ImportedModel, task.model_id) is None
    if is_deleted:
        service.remove_files(str(task.model_id))


WORK = Work(directory, run, clean_up)
