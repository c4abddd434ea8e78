"""The Celery task that downloads and validates a base model in sandboxed children and records the result."""

import sys
from typing import Any

from sqlalchemy.orm import Session

from app.base_models import service
from app.core import db, queue, storage
from app.core.models import ImportedModel
from app.core.queue import celery
from app.core.settings import settings
from trainer.jsonlines import Message
from worker.environment import child_environment
from worker.sandbox import runner


@celery.task(name=queue.IMPORT_MODEL)  # type: ignore[untyped-decorator]
def import_model(model_id: str) -> None:
    """Import a model that waits for it. Safe to repeat; concurrent calls do nothing."""
    if _waiting(model_id) is None:
        return
    with runner.alone(storage.base_model(model_id)) as is_alone:
        model = _started(model_id) if is_alone else None
        if model is None:
            return
        closing = _fetched(model) if model.source == "hub" else {}
        if "failed" not in closing:
            closing = run_child(model_id, "check", validation_command(model_id), child_environment("validate"))

        def store(session: Session) -> None:
            if "result" in closing:
                service.finish_import(session, model_id=model_id, result=closing["result"])
            else:
                service.fail_import(session, model_id=model_id, **closing["failed"])

        def refuse(session: Session, why: str) -> None:
            service.fail_import(session, model_id=model_id, problems=[{"code": "result_unstorable", "why": why}])

        db.store_result(store, refuse)


def _waiting(model_id: str) -> ImportedModel | None:
    with db.transaction() as session:
        return service.importing(session, model_id=model_id)


def _started(model_id: str) -> ImportedModel | None:
    with db.transaction() as session:
        return service.start_import(session, model_id=model_id)


def _fetched(model: ImportedModel) -> dict[str, Any]:
    closing = run_child(model.id, "fetch", download_command(model), download_environment(model.id))
    if "fetched" in closing:
        with db.transaction() as session:
            service.record_download(session, model_id=model.id, reference=closing["fetched"])
    return closing


def run_child(model_id: str, phase: str, command: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Run a child, record its progress and return its closing report."""

    def heartbeat(progress: Message | None) -> bool:
        if progress is not None:
            with db.transaction() as session:
                service.record_progress(session, model_id=model_id, phase=phase, **progress)
        return True

    closing, status = runner.run_sandboxed(command, env, heartbeat)
    return closing or {"failed": {"problems": [{"code": "importer_died", "status": status}]}}


def validation_command(model_id: str) -> list[str]:
    """The command line of the child that validates."""
    limits = [f"--memory={settings().import_memory_bytes}", f"--cpu={settings().parse_cpu_seconds}"]
    directory = str(storage.base_model(model_id))
    return [
        sys.executable,
        "-m",
        "worker.sandbox.model_import.validate",
        directory,
        f"--budget={settings().max_model_bytes}",
        *limits,
    ]


def download_command(model: ImportedModel) -> list[str]:
    """The command line of the child that downloads."""
    directory, budget = str(storage.base_model(model.id)), f"--budget={settings().max_model_bytes}"
    return [sys.executable, "-m", "worker.sandbox.model_import.download", directory, str(model.reference), budget]


def download_environment(model_id: str) -> dict[str, str]:
    """The environment of the child that downloads: the hub's address, proxies and token."""
    cache = str(storage.base_model(model_id) / ".cache")  # not the home of the user that runs the worker, nor its token
    env = child_environment("download", HF_ENDPOINT=settings().hf_endpoint, HF_HOME=cache)
    token = settings().hf_token.get_secret_value()
    return {**env, "HF_TOKEN": token} if token else env
