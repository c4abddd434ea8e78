"""Parses an upload in a sandboxed child."""

import json
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from app.core import db, disk, storage
from app.core.models import BackgroundTask, Corpus, CorpusFile
from app.core.settings import settings
from app.corpora import service
from trainer.formats import corpus_formats
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits
from worker.background import child, download, hub_listing
from worker.background.child import EndCodes
from worker.background.lease import Lease
from worker.background.work import Report, Work
from worker.sandbox.corpus import containers
from worker.sandbox.corpus.parse_files import LIST, OPTIONS, PART


def directory(task: BackgroundTask) -> Path:
    """The directory of the corpus."""
    return storage.corpus(str(task.corpus_id))


def run(task: BackgroundTask, lease: Lease) -> Report:
    """Run the child and return its closing report."""
    failed = _download(str(task.corpus_id), lease)
    if failed is not None:
        return failed
    corpus, files = _load(str(task.corpus_id))
    if corpus is None:  # deleted since
        return {}
    if len(files) > 1:
        write_list(corpus, files)
    return child.run(
        command(corpus) if len(files) <= 1 else command_of_files(corpus),
        child_environment("parse"),
        lease,
        limits=limits(directory(task), {corpus.format, *(file.format for file in files)}),
        directory=directory(task),
        codes=EndCodes("parser_died", "out_of_memory", are_problems=True),
    )


def _load(corpus_id: str) -> tuple[Corpus | None, list[CorpusFile]]:
    with db.transaction() as session:
        return session.get(Corpus, corpus_id), service.list_files(session, corpus_id)


def _download(corpus_id: str, lease: Lease) -> Report | None:
    """List and download what is missing of a corpus. Returns the closing report of a failure."""
    corpus, files = _load(corpus_id)
    if corpus is not None and corpus.dataset is not None and not corpus.dataset.commit:
        failed = hub_listing.list_files(corpus, corpus.dataset, lease)
        if failed is not None:
            return failed
        corpus, files = _load(corpus_id)
    return download.fetch_files(corpus, files, lease) if corpus is not None else None


def limits(path: Path, formats: Collection[str]) -> ChildLimits:
    """The limits of the child. What it writes is UTF-8 of another encoding, an index of tiny documents, or either of
    what a compressed file holds.
    """
    size = sum(upload.stat().st_size for upload in path.glob("upload*"))
    size = size if set(formats).issubset(corpus_formats.ENCODED_FORMATS) else containers.max_expanded_bytes(size)
    memory, cpu = settings().parse_memory_bytes, settings().parse_cpu_seconds
    return ChildLimits(memory_bytes=memory, cpu_seconds=cpu, file_bytes=8 * size + (1 << 20))


def command(corpus: Corpus) -> list[str]:
    """The command line of the child."""
    options = [f"--encoding={corpus.encoding}"] if corpus.encoding else []
    if corpus.progress.kind:
        options.append(f"--kind={corpus.progress.kind}")
    if corpus.progress.skip_bad:
        options.append("--skip-bad")
    if corpus.progress.bad_bytes:
        options.append(f"--bad-bytes={corpus.progress.bad_bytes}")
    if corpus.progress.mapping:
        options.append(f"--mapping={corpus.progress.mapping.model_dump_json()}")
    if corpus.progress.group_column is not None:
        options.append(f"--group-column={corpus.progress.group_column}")
    path = str(storage.corpus(corpus.id))
    return [sys.executable, "-m", "worker.sandbox.corpus.parse", path, corpus.format, *_bounds(), *options]


def write_list(corpus: Corpus, files: Sequence[CorpusFile]) -> None:
    """Tell the child the files of a corpus, and how to read each."""
    options = corpus.progress.model_dump(include=set(OPTIONS))
    entries = [
        {
            "path": storage.corpus_file(corpus.id, file.position).name,
            "filename": file.filename,
            "options": {**options, "form": file.format, "encoding": file.encoding},
        }
        for file in files
    ]
    (storage.corpus(corpus.id) / LIST).write_text(json.dumps(entries))


def command_of_files(corpus: Corpus) -> list[str]:
    """The command line of the child for several files."""
    return [sys.executable, "-m", "worker.sandbox.corpus.parse_files", str(storage.corpus(corpus.id)), *_bounds()]


def _bounds() -> list[str]:
    return [f"--memory={settings().parse_memory_bytes}", f"--keep-free={disk.kept_free()}"]


def clean_up(task: BackgroundTask, is_success: bool) -> None:
    """Remove what a killed child left behind, or the whole directory if the corpus was deleted meanwhile."""
    with db.transaction() as session:
        is_deleted = session.get(Corpus, task.corpus_id) is None
    if is_deleted:
        service.remove_files(str(task.corpus_id))
    for path in directory(task).glob("*.bin.*"):  # complete files have lost this suffix
        path.unlink(missing_ok=True)
    shutil.rmtree(directory(task) / PART, ignore_errors=True)
    (directory(task) / LIST).unlink(missing_ok=True)


WORK = Work(directory, run, clean_up)
