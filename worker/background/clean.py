"""Cleans a version of a corpus in a sandboxed child, which makes another version."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.core import db, disk
from app.core.models import BackgroundTask, Corpus
from app.core.settings import settings
from app.corpora.cleaning import service
from app.corpora.cleaning.recipe import RECIPE_FILE, SCRATCH_BYTES
from trainer.processes.child_environment import TORCH_IMPORT_ENVIRONMENT, child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import child, parse
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work

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
        models = service.model_places(session, cleaning.models)
    if recipe is None:
        return {"failed": {"problems": [{"code": "parent_gone"}]}}
    if models is None:
        return {"failed": {"problems": [{"code": "scoring_model_gone"}]}}

    def is_unchanged(session: Session) -> bool:
        return service.child_recipe(session, cleaning) == recipe

    lease.need(is_unchanged)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RECIPE_FILE).write_text(json.dumps({**recipe, "models": models}))
    own_environment = child_environment("export", **TORCH_IMPORT_ENVIRONMENT)
    environment = own_environment if models else child_environment("parse", **ONE_THREAD)
    report = child.run(
        command(directory, task.memory_bytes),
        environment,
        lease,
        limits=limits(recipe, task.memory_bytes if models else None),
        directory=directory,
        codes=EndCodes("cleaning_died", "cleaning_memory", are_problems=True),
    )
    with db.transaction() as session:
        if not is_unchanged(session):  # what was read may be of two readings
            return {"failed": {"problems": [{"code": "parent_gone"}]}}
    return report


def limits(recipe: dict[str, Any], num_reserved_bytes: int | None = None) -> ChildLimits:
    """The limits of the child; with models, of all that is reserved for them. JSON writes a control character as six,
    and masks may be longer than what they mask.
    """
    size = sum(file.stat().st_size for file in Path(recipe["path"]).glob("*.bin"))
    memory_bytes, num_threads = settings().parse_memory_bytes, 1
    if num_reserved_bytes is not None:  # twice, as mapped weights count without taking memory
        memory_bytes, num_threads = 2 * num_reserved_bytes, os.cpu_count() or 1
    return ChildLimits(
        memory_bytes=memory_bytes,
        cpu_seconds=settings().clean_cpu_seconds * num_threads,
        file_bytes=8 * size + SCRATCH_BYTES,
    )


def command(directory: Path, memory_bytes: int) -> list[str]:
    """The command line of the child."""
    bounds = [f"--memory={memory_bytes}", f"--keep-free={disk.kept_free()}"]
    return [sys.executable, "-m", "worker.sandbox.cleaning.clean", str(directory), *bounds]


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove what a killed child left behind."""
    (parse.directory(task) / RECIPE_FILE).unlink(missing_ok=True)
    parse.clean_up(task, is_success)


WORK = Work(parse.directory, run, clean_up)
