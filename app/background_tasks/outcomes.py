"""What the end of a background task means for the corpus, model or tokenizer that it works on."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.core import background_tasks
from app.core.background_tasks import MAX_LOSSES
from app.core.json_shapes import FailureReason, TaskResult
from app.core.models import BackgroundTask, Corpus, ImportedModel, Tokenizer
from app.corpora import service as corpora
from app.tokenizers import service as tokenizers

PASSING = ("hub_away", "download_away")  # failures that a later try may not have
LOST = {
    "parse": "reader_lost",
    "clean": "cleaning_lost",
    "import": "importer_lost",
    "tokenizer": "tokenizer_lost",
}
CANCELLED = {
    "parse": "reading_cancelled",
    "clean": "cleaning_cancelled",
    "import": "import_cancelled",
    "tokenizer": "tokenizer_cancelled",
}


def record_end(session: Session, *, task: BackgroundTask, report: dict[str, Any]) -> bool:
    """Store the closing report of a task's process: `result`, or `failed` with problems or a code and its values.

    Returns whether the task ended so: not if it was cancelled, deleted or started again, nor if it will be tried again.
    Raises LookupError, TypeError or ValueError for a report of another shape.
    """
    lock_subject(session, task)
    if "result" in report:
        return _record_success(session, task, report["result"])
    return _record_failure(session, task, report["failed"])


def unstorable(task: BackgroundTask, why: str) -> dict[str, Any]:
    """The closing report in place of one that the database rejected."""
    if task.kind in LOST:
        return {"failed": {"problems": [{"code": "result_unstorable", "why": why}]}}
    return {"failed": {"code": "result_unstorable", "values": {"why": why}}}


def _record_success(session: Session, task: BackgroundTask, result: dict[str, Any]) -> bool:
    own = TaskResult.model_validate(result) if task.kind not in LOST else None
    if background_tasks.finish(session, task_id=task.id, fence=task.fence, result=own) is None:
        return False
    if task.kind in ("parse", "clean"):
        corpora.finish_parse(session, corpus_id=str(task.corpus_id), result=result)
    elif task.kind == "import":
        base_models.finish_import(session, model_id=str(task.model_id), result=result)
    elif task.kind == "tokenizer":
        tokenizers.finish(session, tokenizer_id=str(task.tokenizer_id), result=result)
    return True


def _record_failure(session: Session, task: BackgroundTask, failed: dict[str, Any]) -> bool:
    problems = failed.get("problems")
    reason = FailureReason(code="rejected") if problems is not None else FailureReason(**failed)
    codes = [problem["code"] for problem in problems or ()]
    if any(code in PASSING for code in codes) and background_tasks.retry(session, task_id=task.id, fence=task.fence):
        return False
    if background_tasks.fail(session, task_id=task.id, fence=task.fence, failure=reason) is None:
        return False
    if problems is not None:
        _reject(session, task, **failed)
    return True


def lock_subject(session: Session, task: BackgroundTask) -> None:
    """Lock the corpus, model or tokenizer of a task, before the task: a deletion locks both in that order."""
    subjects = ((Corpus, task.corpus_id), (ImportedModel, task.model_id), (Tokenizer, task.tokenizer_id))
    for table, row_id in subjects:
        if row_id is not None:
            session.execute(select(table.id).where(table.id == row_id).with_for_update())


def on_cancel(session: Session, task: BackgroundTask) -> None:
    """Note at its corpus, model or tokenizer that a task was cancelled."""
    if task.kind in CANCELLED:
        _reject(session, task, problems=[{"code": CANCELLED[task.kind]}])


def expire_leases(session: Session) -> int:
    """Queue tasks again whose worker fell silent, and fail those that were lost too often. Returns how many failed."""
    _lock_subjects(session, background_tasks.list_lost(session))
    return _on_loss(session, background_tasks.expire_leases(session))


def lose_node(session: Session, *, node: str) -> int:
    """The same for all running tasks of a node whose worker has just started."""
    _lock_subjects(session, background_tasks.list_lost(session, node=node))
    return _on_loss(session, background_tasks.lose_node(session, node=node))


def _lock_subjects(session: Session, tasks: list[BackgroundTask]) -> None:
    for task in sorted(tasks, key=lambda task: (task.corpus_id or "", task.model_id or "", task.tokenizer_id or "")):
        lock_subject(session, task)


def _on_loss(session: Session, failed: list[BackgroundTask]) -> int:
    for task in failed:
        if task.kind in LOST:
            _reject(session, task, problems=[{"code": LOST[task.kind], "count": MAX_LOSSES}])
    return len(failed)


def _reject(session: Session, task: BackgroundTask, *, problems: list[dict[str, Any]], **report: Any) -> None:
    if task.kind in ("parse", "clean"):
        corpora.fail_parse(session, corpus_id=str(task.corpus_id), problems=problems, **report)
    elif task.kind == "import":
        base_models.fail_import(session, model_id=str(task.model_id), problems=problems)
    elif task.kind == "tokenizer":
        tokenizers.fail(session, tokenizer_id=str(task.tokenizer_id), problems=problems)
