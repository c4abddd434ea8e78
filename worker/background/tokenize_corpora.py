"""Tokenizes corpora in a sandboxed child."""

import shutil
import sys
from pathlib import Path

from app.core import db, storage
from app.core.errors import PanelError
from app.core.models import BackgroundTask
from app.jobs import tokenization
from trainer.data import process_pool
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from trainer.run_dir import RunDir
from worker.background import child
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work
from worker.sandbox import runner

# Besides, each record and each text has a limit of its own (trainer/data/encoding_budget.py).
LIMITS = ChildLimits(memory_bytes=8 << 30)
FENCE = 1  # of the only attempt at the run


def directory(task: BackgroundTask) -> Path:
    """The directory of the task, which is the one of a run."""
    return storage.background_task(task.id)


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Run the child and return its closing report."""
    try:
        with db.transaction() as session:
            assigned = tokenization.assignment(session, task)
    except PanelError as error:
        return {"failed": {"code": "bad_input", "values": {"why": error.message}}}
    if assigned is None:
        return {"failed": {"code": "corpus_changed", "values": {}}}
    with runner.lock(directory(task)):
        shutil.rmtree(directory(task))  # of an earlier start
    RunDir(directory(task)).create(*assigned, FENCE)
    return child.run(
        [sys.executable, "-m", "worker.sandbox.tokenize_corpora", str(directory(task)), str(FENCE)],
        child_environment("tokenizer", **{process_pool.VARIABLE: str(tokenization.NUM_ENCODERS)}),
        lease,
        limits=LIMITS,
        directory=directory(task),
        codes=EndCodes(),
    )


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove the directory. The tokens are in the cache."""
    shutil.rmtree(directory(task), ignore_errors=True)


WORK = Work(directory, run, clean_up)
