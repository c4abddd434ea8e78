"""Imports the archive of a run: a sandboxed child reads it, then it becomes a job."""

import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from app.core import background_tasks, db, disk, storage
from app.core.models import BackgroundTask, Job, Tokenizer
from app.core.settings import settings
from app.jobs.archives import imports
from app.jobs.archives.reading import ARCHIVE
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import child, model_import
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work


def directory(task: BackgroundTask) -> Path:
    """The directory of the task, with the archive."""
    return storage.background_task(task.id)


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Run the child and return its closing report, with the ID of the job as its result."""
    num_bytes = storage.num_bytes(directory(task) / ARCHIVE)
    report = child.run(
        command(task),
        child_environment("validate"),
        lease,
        limits=ChildLimits(
            memory_bytes=task.memory_bytes + num_bytes,  # it maps the weights, and lowers the limit itself
            cpu_seconds=settings().parse_cpu_seconds,
            file_bytes=max(1, num_bytes),
        ),
        directory=directory(task),
        codes=EndCodes(),
        memory_bytes=task.memory_bytes,
        explain=model_import.explain,
    )
    if "result" in report:
        return {"result": {"job_id": task.id}, "tokenizer": report["result"]["tokenizer"]}
    for problem in report.get("failed", {}).get("problems", ()):  # of what the child reported, the first
        return {"failed": {"code": problem.pop("code"), "values": problem}}
    return report


def command(task: BackgroundTask) -> list[str]:
    """The command line of the child."""
    arguments = [str(directory(task)), f"--memory={task.memory_bytes}", f"--keep-free={disk.kept_free()}"]
    return [sys.executable, "-m", "worker.sandbox.run_archive", *arguments]


def record(session: Session, task: BackgroundTask, report: Report, lease: Lease) -> Callable[[], None]:
    """Make the job."""
    return imports.record(session, task, report["tokenizer"], lease.keep)


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove the archive and what it was unpacked to, unless the task will start again; and what has no job."""
    with db.transaction() as session:
        row = session.get(BackgroundTask, task.id)
        is_open = row is not None and row.state in background_tasks.OPEN
        has_job = session.get(Job, task.id) is not None
        has_tokenizer = session.get(Tokenizer, task.id) is not None
    if is_open:
        return
    imports.remove_directory(directory(task))
    if not has_job:
        imports.remove_directory(storage.run(task.id))
    if not has_tokenizer:
        imports.remove_directory(storage.tokenizer(task.id))


WORK = Work(directory, run, clean_up, record)
