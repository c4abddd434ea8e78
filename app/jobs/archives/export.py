"""A job that has ended as one tar archive, written while it is sent.

run.json                  the job, its corpora, attempts, history and checkpoints (description.py)
spec.json                 its spec, resolved
metrics.csv               every point of every curve
samples.jsonl             what the model wrote at each evaluation
tokenizer/                its tokenizer, in Hugging Face layout, where it is a tokenizer of its own
checkpoints/step-<n>-<f>/ weights, tokenizer and manifest of each chosen checkpoint, without the optimizer state
MANIFEST.json             size and SHA-256 of each file before it
"""

import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints import retention_reasons
from app.checkpoints import service as checkpoint_service
from app.checkpoints.conditions import usable_of
from app.core import db, storage
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import TERMINAL, Checkpoint, Job
from app.core.principal import Principal
from app.jobs import schemas, service, stream
from app.jobs.archives.description import (
    FORMAT,
    FORMAT_VERSION,
    RunDescription,
    archived_checkpoint,
    describe,
)
from app.jobs.archives.tar_stream import ArchiveFile, tar_chunks
from app.jobs.attempts import metrics_csv

Choice = Literal["best_and_last", "all", "none"]


@dataclass(frozen=True)
class RunExport:
    """What an archive is written from. `files` are those of checkpoints and tokenizer, which lie on the disk."""

    job_id: str
    name: str  # of the archive
    exported_at: datetime
    description: RunDescription
    documents: dict[str, bytes]  # small files by their names
    files: list[ArchiveFile]


def prepare(session: Session, *, principal: Principal, job_id: str, choice: Choice) -> RunExport:
    """Read all that is small, and look that the rest is there.

    Raises PanelError: 404, 409 for a job that has not ended, and 409 if a file of a checkpoint is missing.
    """
    job = service.get(session, principal=principal, job_id=job_id)
    if job.state not in TERMINAL:
        raise PanelError(409, "job_open", _("This job has not ended. Export it once it has, or cancel it."))
    reasons = retention_reasons.reasons(session, [job.id])
    rows = chosen(session, job, choice)
    directories = {row.id: f"checkpoints/step-{row.step}-{row.fence}" for row in rows}
    entries = [archived_checkpoint(row, directories[row.id], reasons.get(row.id, [])) for row in rows]
    now = db.now()
    samples = [schemas.sample_answer(sample) for sample in stream.samples(session, job_id=job.id)]
    files = [file for row in rows for file in _checkpoint_files(row, directories[row.id])]
    description = describe(session, job, entries, principal=principal, exported_at=now)
    return RunExport(
        job_id=job.id,
        name=_archive_name(job.name),
        exported_at=now,
        description=description,
        documents={"spec.json": job.spec.model_dump_json(indent=2).encode(), "samples.jsonl": _lines(samples)},
        files=[*(_tokenizer_files(job) if description.tokenizer is not None else ()), *files],
    )


def chosen(session: Session, job: Job, choice: Choice) -> list[Checkpoint]:
    """The intact checkpoints of a job that an archive holds, oldest first."""
    if choice == "none":
        return []
    intact = select(Checkpoint).where(usable_of([job.id])).order_by(Checkpoint.step, Checkpoint.fence)
    rows = list(session.scalars(intact))
    if choice == "all" or not rows:
        return rows
    best = checkpoint_service.best_of_job(session, job.id)
    return [row for row in rows if row.id in (rows[-1].id, best.id if best is not None else None)]


def chunks(export: RunExport) -> Iterator[bytes]:
    """The archive in pieces. It breaks off with FileChanged if a file differs from its checkpoint's manifest."""
    identity: dict[str, object] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    with tempfile.TemporaryFile(dir=storage.data()) as curves:
        for chunk in metrics_csv.chunks(export.job_id):
            curves.write(chunk)
        yield from tar_chunks(_files(export, curves), identity, export.exported_at.timestamp())


def _files(export: RunExport, curves: BinaryIO) -> Iterator[ArchiveFile]:
    """All files in the order of the archive."""
    yield _document("run.json", export.description.model_dump_json(indent=2).encode())
    for name, content in export.documents.items():
        yield _document(name, content)
    size = curves.tell()
    curves.seek(0)
    yield ArchiveFile("metrics.csv", size, lambda: curves)
    yield from export.files


def _document(name: str, content: bytes) -> ArchiveFile:
    return ArchiveFile(name, len(content), partial(io.BytesIO, content))


def _checkpoint_files(checkpoint: Checkpoint, directory: str) -> list[ArchiveFile]:
    hashes = {file.name: file.sha256 for file in checkpoint.manifest.files}
    root = storage.checkpoint(checkpoint.path)
    files = []
    for path in checkpoint_service.files(checkpoint):
        name = str(path.relative_to(root))
        files.append(_file_on_disk(path, f"{directory}/{name}", hashes[name]))
    manifest = checkpoint_service.shared_manifest(checkpoint).encode()
    return [*files, _document(f"{directory}/MANIFEST.json", manifest)]


def _tokenizer_files(job: Job) -> list[ArchiveFile]:
    if job.tokenizer_id is None:
        return []
    root = storage.tokenizer(job.tokenizer_id)
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [_file_on_disk(path, f"tokenizer/{path.relative_to(root)}") for path in paths]


def _file_on_disk(path: Path, name: str, sha256: str | None = None) -> ArchiveFile:
    return ArchiveFile(name, path.stat().st_size, lambda: path.open("rb"), sha256)


def _lines(entries: Iterable[BaseModel]) -> bytes:
    return "".join(f"{entry.model_dump_json()}\n" for entry in entries).encode()


def _archive_name(job_name: str) -> str:
    return f"{re.sub(r'[^0-9A-Za-z_.-]+', '-', job_name).strip('-.') or 'run'}.tar"
