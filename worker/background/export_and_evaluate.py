"""Exports or evaluates a checkpoint or an imported model in a child process."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.background_tasks import facts, service
from app.checkpoints import usable_models
from app.core import db, storage
from app.core.json_shapes import TaskOptions
from app.core.models import BackgroundTask, Checkpoint, Corpus, Job
from app.core.settings import settings
from app.corpora import service as corpora_service
from trainer.events import EXIT_BAD_INPUT
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import child
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work
from worker.sandbox import runner

LOG = "log.txt"
SCRATCH_BYTES = 256 << 20  # of a file that is no weights


@dataclass(frozen=True)
class ModelAssignment:
    """What the child has to do."""

    task_id: str
    kind: str
    options: TaskOptions
    weights: str  # the directory of the model
    is_checkpoint: bool  # written here, with a manifest
    corpora: list[Corpus]
    base: str | None  # directory of the base model, for adapter exports
    judge: str | None = None  # directory of the model that judges answers


def directory(task: BackgroundTask) -> Path:
    """The directory of the task."""
    return storage.background_task(task.id)


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Run the child and return its closing report."""
    with db.transaction() as session:
        assignment = assign(session, task)
    if len(assignment.corpora) < len(assignment.options.corpora):
        return {"failed": {"code": "corpus_gone", "values": {}}}
    if assignment.options.judge is not None and assignment.judge is None:
        return {"failed": {"code": "judge_gone", "values": {}}}
    with runner.lock(directory(task)):
        service.remove_files(task.id)  # of an earlier start
    directory(task).mkdir(parents=True)
    log = directory(task) / LOG
    return child.run(
        command(assignment),
        child_environment("export"),
        lease,
        limits=limits(task, assignment),
        directory=directory(task),
        codes=EndCodes(),
        stderr=log,
        explain=partial(_explain, log),
    )


def _explain(log: Path, status: int) -> dict[str, Any] | None:
    """The failure of some exit statuses."""
    if status in (-signal.SIGPROF, -signal.SIGXCPU):  # the budget of a text, or of all
        return {"code": "text_slow" if status == -signal.SIGPROF else "process_slow"}
    lines = log.read_text(errors="replace").strip().splitlines()
    return {"code": "bad_input", "why": lines[-1][:500]} if status == EXIT_BAD_INPUT and lines else None


def limits(task: BackgroundTask, assignment: ModelAssignment) -> ChildLimits:
    """The limits of the child. A file of an export has the weights as 32-bit numbers at most, so four times as long as
    what they were read from; an evaluation writes its log only.
    """
    sources = [Path(path) for path in (assignment.weights, assignment.base) if path is not None]
    size = sum(file.stat().st_size for source in sources for file in source.rglob("*") if file.is_file())
    return ChildLimits(
        memory_bytes=2 * task.memory_bytes,  # twice, as mapped weights count without taking memory
        cpu_seconds=settings().evaluate_cpu_seconds * (os.cpu_count() or 1),
        file_bytes=SCRATCH_BYTES + (4 * size if task.kind == "export" else 0),
    )


def assign(session: Session, task: BackgroundTask) -> ModelAssignment:
    """The assignment of a task."""
    ids = task.options.corpora
    rows = {corpus.id: corpus for corpus in session.scalars(select(Corpus).where(Corpus.id.in_(ids)))}
    checkpoint = session.get(Checkpoint, task.checkpoint_id) if task.checkpoint_id is not None else None
    weights = storage.checkpoint(checkpoint.path) if checkpoint is not None else storage.base_model(str(task.model_id))
    return ModelAssignment(
        task.id,
        task.kind,
        task.options,
        str(weights),
        checkpoint is not None,
        [rows[corpus_id] for corpus_id in ids if corpus_id in rows],
        _base(session, checkpoint) if checkpoint is not None and task.options.format == "adapter" else None,
        _weights(session, task.options.judge),
    )


def _base(session: Session, checkpoint: Checkpoint) -> str | None:
    """The directory of the base model of a checkpoint's job, if it still exists."""
    return _weights(session, session.get_one(Job, checkpoint.job_id).spec.base_model)


def _weights(session: Session, model_id: str | None) -> str | None:
    """The directory of a checkpoint or an imported model, if it still exists."""
    path = usable_models.directory(session, model_id) if model_id else None
    return str(path) if path is not None else None


def command(assignment: ModelAssignment) -> list[str]:
    """The command line of the child."""
    return evaluation_command(assignment) if assignment.kind == "evaluation" else export_command(assignment)


def evaluation_command(assignment: ModelAssignment) -> list[str]:
    """The command line of an evaluation."""
    options = assignment.options
    corpora = storage.background_task(assignment.task_id) / "corpora.json"
    corpora.write_text(json.dumps([corpora_service.corpus_input(row).model_dump() for row in assignment.corpora]))
    limit = [f"--limit={options.limit}"] if options.limit is not None else []
    numbers = [f"--num-fewshot={options.num_fewshot}", f"--max-tokens={options.max_tokens or 128}"]
    judge = [f"--judge={assignment.judge}"] if assignment.judge is not None else []
    return [sys.executable, "-m", "trainer", "evaluate", assignment.weights, str(corpora), *limit, *numbers, *judge]


def export_command(assignment: ModelAssignment) -> list[str]:
    """The command line of an export."""
    options = assignment.options
    facts_path = storage.background_task(assignment.task_id) / "facts.json"
    with db.transaction() as session:
        facts_path.write_text(json.dumps(facts.export_facts(session, assignment.task_id)))
    arguments = [f"--format={options.format}", f"--max-shard-bytes={options.max_shard_bytes}", f"--facts={facts_path}"]
    if options.format == "gguf":
        arguments.append(f"--quantization={options.quantization}")
    if not assignment.is_checkpoint:
        arguments.append("--no-manifest")
    if assignment.base is not None:
        arguments.append(f"--base={assignment.base}")
    target = str(storage.exported_files(assignment.task_id))
    return [sys.executable, "-m", "trainer", "export", assignment.weights, target, *arguments]


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Keep the files of an export or evaluation that succeeded; remove all others."""
    if not is_success:
        service.remove_files(task.id)


EXPORT = Work(directory, run, clean_up)
EVALUATION = Work(directory, run, clean_up, writes_user_data=False)
