"""Counts the statistics of a parsed corpus in a sandboxed child."""

import shutil
import sys
from pathlib import Path

from app.core import db, storage
from app.core.models import BackgroundTask, Corpus
from app.core.settings import settings
from app.corpora import service as corpora_service
from app.corpora.cleaning.recipe import SCRATCH_BYTES
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import child
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work


def directory(task: BackgroundTask) -> Path:
    """The directory of the task."""
    return storage.background_task(task.id)


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Run the child and return its closing report."""
    with db.transaction() as session:
        corpus = session.get(Corpus, task.corpus_id)
    if corpus is None or corpus.text_sha256 != task.options.text_sha256:  # deleted or parsed again since
        return {"failed": {"code": "corpus_changed", "values": {}}}
    report = child.run(
        command(corpus, task.options.tokenizer),
        child_environment("tokenizer"),
        lease,
        limits=ChildLimits(
            memory_bytes=task.memory_bytes, cpu_seconds=settings().parse_cpu_seconds, file_bytes=SCRATCH_BYTES
        ),
        directory=directory(task),
        codes=EndCodes(out_of_memory="statistics_memory"),
    )
    with db.transaction() as session:
        if not corpora_service.is_unchanged(session, [corpus]):
            return {"failed": {"code": "corpus_changed", "values": {}}}
    return report


def command(corpus: Corpus, tokenizer: str | None) -> list[str]:
    """The command line of the child."""
    options = [f"--kind={corpus.kind}", f"--memory={settings().parse_memory_bytes}"]
    if tokenizer is not None:
        options.append(f"--tokenizer={storage.tokenizer(tokenizer) / 'tokenizer.json'}")
    return [sys.executable, "-m", "worker.sandbox.corpus_statistics", str(storage.corpus(corpus.id)), *options]


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove the directory, which only held the lock."""
    shutil.rmtree(directory(task), ignore_errors=True)


WORK = Work(directory, run, clean_up, writes_user_data=False)
