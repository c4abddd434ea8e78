"""Cleans a version of a corpus in a sandboxed child, which makes another version."""

import json
import sys
from pathlib import Path
from typing import Any

from app.core import db
from app.core.models import BackgroundTask, Corpus
from app.core.settings import settings
from app.corpora.cleaning import service
from app.corpora.cleaning.recipe import RECIPE_FILE, SCRATCH_BYTES
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import parse
from worker.background.lease import Lease
from worker.background.work import Report, Work
from worker.sandbox import runner

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Run the child and return its closing report."""
    directory = parse.directory(task)
    with db.transaction() as session:
        corpus = session.get(Corpus, task.corpus_id)
        if corpus is None or corpus.cleaning is None:  # deleted since
            return {}
        cleaning = corpus.cleaning
        recipe = service.child_recipe(session, cleaning)
    if recipe is None:
        return {"failed": {"problems": [{"code": "parent_gone"}]}}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RECIPE_FILE).write_text(json.dumps(recipe))
    closing, status = runner.run_sandboxed(
        command(directory),
        child_environment("parse", **ONE_THREAD),
        lease.renew,
        limits=limits(recipe),
        directory=directory,
    )
    with db.transaction() as session:
        if service.child_recipe(session, cleaning) != recipe:  # what was read may be of two readings
            return {"failed": {"problems": [{"code": "parent_gone"}]}}
    if not closing and lease.is_disk_full:
        return {"failed": {"problems": [{"code": "disk_filled_up"}]}}
    return closing or {"failed": {"problems": [{"code": "cleaning_died", "status": status}]}}


def limits(recipe: dict[str, Any]) -> ChildLimits:
    """The limits of the child. JSON writes a control character as six, and masks may be longer than what they mask."""
    size = sum(file.stat().st_size for file in Path(recipe["path"]).glob("*.bin"))
    return ChildLimits(
        memory_bytes=settings().parse_memory_bytes,
        cpu_seconds=settings().clean_cpu_seconds,
        file_bytes=8 * size + SCRATCH_BYTES,
    )


def command(directory: Path) -> list[str]:
    """The command line of the child."""
    memory = f"--memory={settings().parse_memory_bytes}"
    return [sys.executable, "-m", "worker.sandbox.cleaning.clean", str(directory), memory]


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove what a killed child left behind."""
    (parse.directory(task) / RECIPE_FILE).unlink(missing_ok=True)
    parse.clean_up(task, is_success)


WORK = Work(parse.directory, run, clean_up)
