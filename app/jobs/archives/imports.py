"""Imports a run that another installation exported: the upload of its archive, and the job that it becomes.

The task's process (worker/sandbox/run_archive.py) has checked every byte before a job is made of it.
"""

import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from anyio import to_thread
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.checkpoints import signature
from app.core import background_tasks, db, disk, job_failures, queue, quotas, storage
from app.core.account_models import User
from app.core.archive_shapes import RunOrigin
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.json_shapes import JobFacts, JobProgress, MessageValues, TaskOptions, Value
from app.core.labels import MAX_NOTES_LENGTH, checked_tags
from app.core.model_base import new_id
from app.core.models import BackgroundTask, Job, Sample
from app.core.names import check_text, checked_name, printable_text
from app.core.principal import Principal, background_principal
from app.core.settings import settings
from app.jobs import service
from app.jobs.archives import reading
from app.jobs.archives.description import ArchivedCheckpoint, ArchivedJob, RunDescription
from app.jobs.archives.local_ids import LocalIds
from app.jobs.attempts import metrics
from app.jobs.lifecycle.state import add_history
from app.jobs.service import PRIORITIES
from app.tokenizers import service as tokenizers
from app.web import uploads
from trainer.run_dir import MANIFEST, RunDir, write_atomically
from trainer.spec import TrainSpec

T = TypeVar("T")

MAX_FILENAME_LENGTH = 200
MAX_BYTES = 1 << 62  # the disk and the quota are the limit
CHECK_BYTES = 16 << 20  # of an upload, after which they are checked again
VALUES_PER_INSERT = 2_000  # of curves
CHARACTERS_PER_INSERT = 100_000  # of samples
CHECKPOINTS = "checkpoints"  # the directory of all, in an archive and of a job


# ---- the upload -----------------------------------------------------------------------------------------------------


async def receive(
    principal: Principal, filename: str, declared: str | None, stream: AsyncIterator[bytes]
) -> BackgroundTask:
    """Store an archive and queue its import. `declared` is the Content-Length header.

    The disk must have room for the archive and what it is unpacked to, and the quota for the archive: both are checked
    before and, as no length may be declared, while it arrives. A failed upload leaves no file. Raises PanelError.
    """
    check_text("filename", filename)
    await to_thread.run_sync(_check_declared, principal, declared)
    task_id = new_id()
    path = storage.background_task(task_id) / reading.ARCHIVE
    upload = await to_thread.run_sync(_ArchiveUpload, principal, path)
    try:
        sha256 = await uploads.save_upload(stream, upload)
        name, num_bytes = filename[:MAX_FILENAME_LENGTH], upload.num_bytes
        options = TaskOptions(filename=name, sha256=sha256, num_bytes=num_bytes)
        return await to_thread.run_sync(_enqueue, principal, task_id, num_bytes, options)
    except BaseException:
        await to_thread.run_sync(remove_directory, path.parent)
        raise


class _ArchiveUpload(uploads.StreamedUpload):
    """The upload of an archive, which ends once it is more than the disk or its user's quota has room for."""

    def __init__(self, principal: Principal, path: Path) -> None:
        super().__init__(path, MAX_BYTES, _too_large())
        self._principal = principal
        self._next_check = CHECK_BYTES

    def write(self, chunks: list[bytes]) -> None:
        """Append chunks. Raises PanelError: 507 if the disk, 403 if the quota has no room for what has arrived."""
        super().write(chunks)
        if self.num_bytes >= self._next_check:
            self._next_check = self.num_bytes + CHECK_BYTES
            disk.require_room(self.num_bytes)  # to unpack what is stored already
            _check_quota(self._principal, self.num_bytes)


def _check_declared(principal: Principal, declared: str | None) -> None:
    uploads.check_declared(declared, MAX_BYTES, _too_large(), copies=2)
    _check_quota(principal, int(declared[:20]) if declared and declared.isdecimal() else 0)


def _check_quota(principal: Principal, num_bytes: int) -> None:
    with db.transaction() as session:
        quotas.check_disk(session, principal.user_id, num_bytes)


def _too_large() -> PanelError:
    return PanelError(413, "body_too_large", _("The archive is too large."))


def _enqueue(principal: Principal, task_id: str, num_bytes: int, options: TaskOptions) -> BackgroundTask:
    with db.transaction() as session:
        service.lock_user(session, principal)  # the same archive sent twice: the second waits, and is refused
        _refuse_repeated(session, principal, str(options.sha256))
        task = background_tasks.enqueue(
            session,
            kind="job_import",
            owner_id=principal.user_id,
            memory_bytes=settings().import_memory_bytes,
            disk_bytes=num_bytes,
            options=options,
            task_id=task_id,
        )
    queue.flush_outbox()
    return task


def _refuse_repeated(session: Session, principal: Principal, sha256: str) -> None:
    """Raise PanelError (409) if the user has imported an archive with the same bytes, or is importing it."""
    is_same = (Job.owner_id == principal.user_id, Job.imported_from["sha256"].as_string() == sha256)
    job = session.scalar(select(Job).where(*is_same, Job.deleted_at.is_(None)).limit(1))
    if job is not None:
        message = _(
            "This archive is imported already, as the job “{name}”. Delete that to import it again.", name=job.name
        )
        raise PanelError(409, "archive_imported", message)
    is_open = (BackgroundTask.owner_id == principal.user_id, BackgroundTask.state.in_(background_tasks.OPEN))
    same = select(BackgroundTask.id).where(*is_open, BackgroundTask.options["sha256"].as_string() == sha256)
    task_id = session.scalar(same.limit(1))
    if task_id is not None:
        message = _("This archive is being imported already, by the task {id}.", id=task_id)
        raise PanelError(409, "archive_imported", message)


def remove_directory(directory: Path) -> None:
    """Remove what was uploaded and unpacked for a task, or the files of a job that came to nothing."""
    shutil.rmtree(directory, ignore_errors=True)


# ---- the job --------------------------------------------------------------------------------------------------------


def record(
    session: Session, task: BackgroundTask, tokenizer: dict[str, Any] | None, keep: Callable[[], None]
) -> Callable[[], None]:
    """Make a job of the files that a task's process has checked, in the transaction that ends the task. Returns what
    moves the files, for the end of that.

    The job has the ID of the task, and so has its tokenizer where that is new. `tokenizer` are hash and size of the
    vocabulary of the archived one. `keep` is called again and again meanwhile, and raises an error if the task is lost.
    May be repeated after an outage, even one at the commit: what is read from the directory of the task stays there,
    and what was moved already stays in its place.
    """
    owner = session.get_one(User, task.owner_id)
    directory = storage.background_task(task.id) / reading.UNPACKED
    run, spec = reading.description(directory), reading.spec(directory)
    ids = LocalIds(session, background_principal(owner), run, spec)
    tokenizer_id = None
    if tokenizer is not None and run.tokenizer is not None:
        name = _name(run.tokenizer.name, tokenizers.MAX_NAME_LENGTH)
        corpora = ids.replaced(spec.corpora)
        values = {"tokenizer_id": task.id, "owner_id": owner.id, "name": name, "corpora": corpora, **tokenizer}
        row = tokenizers.record_tokenizer(session, **values)
        tokenizer_id = row.id
        ids.name_tokenizer(run.tokenizer.id, row.id)
    job = _insert(session, task, owner.id, run, TrainSpec.model_validate(ids.replaced(spec.model_dump())), ids)
    job.tokenizer_id = tokenizer_id
    latest = _append_curves(session, job, directory, ids, keep)
    job.progress = JobProgress(done=job.step, total=job.max_steps or 0, latest=latest)
    _add_samples(session, job, directory, keep)
    _record_checkpoints(session, job, run, directory, ids, keep)
    return lambda: _move(job, directory)


def _insert(
    session: Session, task: BackgroundTask, owner_id: str, run: RunDescription, spec: TrainSpec, ids: LocalIds
) -> Job:
    archived = run.job
    code, values = _failure(archived)
    job = Job(
        id=task.id,
        owner_id=owner_id,
        name=_name(archived.name, service.MAX_NAME_LENGTH),
        tags=_tags(archived.tags),
        notes=printable_text(archived.notes)[:MAX_NOTES_LENGTH],
        recipe=spec.recipe,
        spec=spec,
        spec_sha256=spec.sha256(),
        body_sha256="",
        desired="cancel" if archived.state == "cancelled" else "run",
        state=archived.state,
        step=archived.step,
        max_steps=archived.max_steps,
        facts=JobFacts.model_validate(ids.replaced(_facts(archived.facts))),
        priority=PRIORITIES[spec.priority],
        failure_code=code,
        failure=values,
        started_at=archived.started_at,
        finished_at=archived.finished_at or run.exported_at,
        imported_from=RunOrigin(
            filename=str(task.options.filename),
            sha256=str(task.options.sha256),
            exported_at=run.exported_at,
            athanor_version=run.athanor_version[:40],
            job_id=archived.id[:64],
            corpora=run.corpora,
            validation_corpora=run.validation_corpora,
            base_model=run.base_model,
        ),
    )
    session.add(job)
    session.flush()
    add_history(session, job, None, "user", "imported", filename=str(task.options.filename))
    job.fence = max([1, *map(_fence, run.checkpoints)])
    return job


def _name(text: str, max_length: int) -> str:
    try:
        return checked_name(text, max_length=max_length)
    except PanelError:
        return "imported"


def _tags(tags: list[str]) -> list[str]:
    try:
        return checked_tags(tags)
    except PanelError:
        return []


def _facts(facts: JobFacts) -> dict[str, Any]:
    """The facts without what is about another machine, and without sentences of others."""
    excluded: Any = {"planned": True, "probe": True, "usage": True, "remarks": True}
    return facts.model_dump(mode="json", exclude_unset=True, exclude={**excluded, "held_out": {"__all__": {"remarks"}}})


def _failure(job: ArchivedJob) -> tuple[str | None, MessageValues]:
    """Why a job failed, if it is a reason that is known here. Values that are sentences of others are left out."""
    if job.state != "failed" or job.failure_code not in job_failures.CODES:
        return None, {}
    values: MessageValues = {name: value for name, value in job.failure.items() if isinstance(value, str | int | float)}
    try:
        job_failures.describe(job.failure_code, values)
    except (ValueError, TypeError, KeyError, IndexError):
        return job.failure_code, {}
    return job.failure_code, values


def _fence(entry: ArchivedCheckpoint) -> int:
    return int(entry.directory.rpartition("-")[2])


def _append_curves(
    session: Session, job: Job, directory: Path, ids: LocalIds, keep: Callable[[], None]
) -> dict[str, Value]:
    """Add all points; returns the last value of each series."""
    latest: dict[str, Value] = {}
    rows = enumerate(reading.curve_rows(directory), 1)
    for batch in _batches(rows, lambda row: 1 + len(row[1].values), VALUES_PER_INSERT):
        keep()
        points = []
        for seq, row in batch:
            values = {ids.series(name): value for name, value in row.values.items()}
            latest.update(values)
            points.append(metrics.Point(seq, row.step, {**values}, row.at))
        metrics.append(session, job_id=job.id, fence=job.fence, points=points)
    return latest


def _add_samples(session: Session, job: Job, directory: Path, keep: Callable[[], None]) -> None:
    samples = enumerate(reading.samples(directory), 1)
    for batch in _batches(samples, lambda sample: 1 + len(sample[1].prompt + sample[1].text), CHARACTERS_PER_INSERT):
        keep()
        rows = [{"job_id": job.id, "fence": job.fence, "seq": seq, **sample.model_dump()} for seq, sample in batch]
        session.execute(insert(Sample).on_conflict_do_nothing(), rows)


def _batches(items: Iterable[T], size: Callable[[T], int], max_size: int) -> Iterator[list[T]]:
    """Items together, as soon as their sizes add up to a maximum."""
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= max_size:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _record_checkpoints(
    session: Session, job: Job, run: RunDescription, directory: Path, ids: LocalIds, keep: Callable[[], None]
) -> None:
    """Sign the checkpoints and record them, in the place that _move gives them or has given them already."""
    target = storage.run(job.id)
    place = directory if (directory / CHECKPOINTS).exists() else target
    for entry in run.checkpoints:
        keep()
        path = place / entry.directory
        signature.sign(path, job_id=job.id, owner_id=job.owner_id, fence=_fence(entry), step=entry.step)
        checkpoints.record(
            session,
            owner_id=job.owner_id,
            job_id=job.id,
            step=entry.step,
            fence=_fence(entry),
            path=str((target / entry.directory).relative_to(storage.data())),
            manifest=reading.read_json(path / MANIFEST),
            metrics={ids.series(name): value for name, value in entry.metrics.items()},
        )


def _move(job: Job, directory: Path) -> None:
    """Move the checkpoints and a new tokenizer to their places, and write the spec of the job. May be repeated."""
    target = RunDir(storage.run(job.id))
    source = directory / CHECKPOINTS
    if source.exists():
        remove_directory(target.path)  # what an interrupted start left
    target.path.mkdir(parents=True, exist_ok=True)
    write_atomically(target.spec_path, job.spec.model_dump_json(indent=2))
    if source.exists():
        source.rename(target.path / CHECKPOINTS)
    if job.tokenizer_id is not None and not storage.tokenizer(job.tokenizer_id).exists():
        storage.tokenizer(job.tokenizer_id).parent.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer").rename(storage.tokenizer(job.tokenizer_id))
