"""Trains a tokenizer, or imports one, in a sandboxed child."""

import sys
from pathlib import Path

from app.core import db, disk, storage
from app.core.models import BackgroundTask, Tokenizer
from app.core.settings import settings
from app.corpora import service as corpora_service
from app.tokenizers import service
from app.tokenizers.imports import MAX_BYTES
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import child, model_import
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work
from worker.sandbox.tokenizer.request import REQUEST, TrainingRequest

FILE_BYTES = 4 * MAX_BYTES  # of the files that a tokenizer becomes


def directory(task: BackgroundTask) -> Path:
    """The directory of the tokenizer."""
    return storage.tokenizer(str(task.tokenizer_id))


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Run the child and return its closing report."""
    with db.transaction() as session:
        tokenizer = session.get(Tokenizer, task.tokenizer_id)
        corpora = corpora_service.existing(session, tokenizer.corpora) if tokenizer is not None else []
    if tokenizer is None:  # deleted since
        return {}
    if len(corpora) < len(tokenizer.corpora):
        return {"failed": {"problems": [{"code": "corpus_gone"}]}}
    if tokenizer.source == "training":
        request = TrainingRequest(
            corpora=[corpora_service.corpus_input(corpus) for corpus in corpora],
            **tokenizer.facts.model_dump(include={"vocab_size", "special_tokens", "model_kind", "sample_bytes"}),
        )
        directory(task).mkdir(parents=True, exist_ok=True)
        (directory(task) / REQUEST).write_text(request.model_dump_json())
    lease.need(lambda session: corpora_service.is_unchanged(session, corpora))
    report = child.run(
        command(task, tokenizer),
        child_environment("tokenizer" if tokenizer.source == "training" else "validate"),
        lease,
        limits=ChildLimits(
            memory_bytes=task.memory_bytes, cpu_seconds=settings().parse_cpu_seconds, file_bytes=FILE_BYTES
        ),
        directory=directory(task),
        codes=EndCodes("tokenizer_died", "out_of_memory", are_problems=True),
        explain=model_import.explain,
    )
    with db.transaction() as session:
        if not corpora_service.is_unchanged(session, corpora):
            return {"failed": {"problems": [{"code": "corpus_gone"}]}}
    return report


def command(task: BackgroundTask, tokenizer: Tokenizer) -> list[str]:
    """The command line of the child."""
    module = "train" if tokenizer.source == "training" else "convert"
    arguments = [str(directory(task)), f"--memory={task.memory_bytes}"]
    if module == "convert":
        arguments += [f"--budget={FILE_BYTES}", f"--keep-free={disk.kept_free()}"]
        arguments += [f"--end={tokenizer.facts.end}"] if tokenizer.facts.end else []
    return [sys.executable, "-m", f"worker.sandbox.tokenizer.{module}", *arguments]


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove the request, or the whole directory if the tokenizer failed or was deleted meanwhile."""
    with db.transaction() as session:
        tokenizer = session.get(Tokenizer, task.tokenizer_id)
    if tokenizer is None or tokenizer.state == "failed":
        service.remove_files(str(task.tokenizer_id))
    elif is_success:
        (directory(task) / REQUEST).unlink(missing_ok=True)


WORK = Work(directory, run, clean_up)
