"""The Celery task that exports or evaluates a checkpoint in a child process and records the result."""

import json
import sys
import threading
import time
from typing import Any

from sqlalchemy.orm import Session

from app.checkpoint_tasks import facts, service
from app.checkpoint_tasks.service import TaskAssignment
from app.core import db, queue, storage
from app.core.queue import celery
from app.corpora import service as corpora_service
from trainer.events import EXIT_BAD_INPUT
from trainer.jsonlines import Message
from worker.environment import child_environment
from worker.sandbox import runner

_alone = threading.Lock()  # one task at a time per node: each may need all its memory


@celery.task(name=queue.RUN_CHECKPOINT_TASK)  # type: ignore[untyped-decorator]
def run_checkpoint_task(task_id: str) -> None:
    """Run a queued task, and then any others that are queued. Safe to repeat, also concurrently."""
    if not _alone.acquire(blocking=False):
        return  # the task that has the lock will run this one next
    try:
        with db.transaction() as session:
            assignment = service.begin(session, task_id=task_id)
        while assignment is not None:
            _do(assignment)
            with db.transaction() as session:
                assignment = service.begin_next(session)
    finally:
        _alone.release()


def _do(assignment: TaskAssignment) -> None:
    if len(assignment.corpora) < len(assignment.options.corpora):
        closing: dict[str, Any] = {"failed": {"code": "corpus_gone", "values": {}}}
    else:
        closing = run_child(assignment)
    task_id, start = assignment.task_id, assignment.start

    def store(session: Session) -> bool:
        if "result" in closing:
            return service.finish(session, task_id=task_id, start=start, result=closing["result"])
        service.fail(session, task_id=task_id, start=start, **closing["failed"])
        return False

    def refuse(session: Session, why: str) -> bool:
        service.fail(session, task_id=task_id, start=start, code="result_unstorable", values={"why": why})
        return False

    if not db.store_result(store, refuse):
        service.remove_files(assignment.task_id)


def run_child(assignment: TaskAssignment) -> dict[str, Any]:
    """Run the child process and return its closing report. It is killed if the task was cancelled or restarted."""
    directory = storage.checkpoint_task(assignment.task_id)
    service.remove_files(assignment.task_id)  # of an earlier start
    directory.mkdir(parents=True)
    started_at = time.monotonic()

    def heartbeat(progress: Message | None) -> bool:
        if progress is not None:
            progress = {**progress, "seconds": round(time.monotonic() - started_at, 3)}
        with db.transaction() as session:
            return service.heartbeat(session, task_id=assignment.task_id, start=assignment.start, progress=progress)

    log = directory / "log.txt"
    closing, status = runner.run_sandboxed(command(assignment), child_environment("export"), heartbeat, log)
    if closing:
        return closing
    lines = log.read_text(errors="replace").strip().splitlines()
    if status == EXIT_BAD_INPUT and lines:
        return {"failed": {"code": "bad_input", "values": {"why": lines[-1][:500]}}}
    return {"failed": {"code": "process_died", "values": {"status": status}}}


def command(assignment: TaskAssignment) -> list[str]:
    """The command line of the child process."""
    directory = storage.checkpoint_task(assignment.task_id)
    options = assignment.options
    trainer = [sys.executable, "-m", "trainer"]
    if assignment.kind == "evaluation":
        corpora = directory / "corpora.json"
        corpora.write_text(
            json.dumps([corpora_service.corpus_input(corpus).model_dump() for corpus in assignment.corpora])
        )
        limit = [f"--limit={options.limit}"] if options.limit is not None else []
        return [
            *trainer,
            "evaluate",
            assignment.directory,
            str(corpora),
            *limit,
            f"--num-fewshot={options.num_fewshot}",
        ]
    facts_path = directory / "facts.json"
    with db.transaction() as session:
        facts_path.write_text(json.dumps(facts.export_facts(session, assignment.task_id)))
    options_arguments = [f"--format={options.format}", f"--max-shard-bytes={options.max_shard_bytes}"]
    if options.format == "gguf":
        options_arguments.append(f"--quantization={options.quantization}")
    if not assignment.is_checkpoint:
        options_arguments.append("--no-manifest")
    if assignment.base is not None:
        options_arguments.append(f"--base={assignment.base}")
    return [
        *trainer,
        "export",
        assignment.directory,
        str(storage.exported_files(assignment.task_id)),
        *options_arguments,
        f"--facts={facts_path}",
    ]
