"""Operations on checkpoints: the only writer of their table. The supervisor publishes the files beforehand."""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, Double, cast, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.checkpoints import retention_reasons
from app.checkpoints.conditions import usable_of
from app.core import audit_log, background_tasks, db, labels, sharing, storage
from app.core.deployment_models import Deployment
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.json_shapes import StoredFile
from app.core.labels import LabelChanges
from app.core.model_base import new_id
from app.core.models import TERMINAL, BackgroundTask, Checkpoint, Job
from app.core.principal import Principal, not_found, own, visible, visible_parts, visible_to
from trainer.run_dir import MANIFEST

CHUNK_BYTES = 1 << 20
LIVE = ("ready", "corrupt")  # the others are deleted for users
MAX_JOBS = 200  # that are offered to choose from
MAX_NAMED_JOBS = 200  # of a search, whose checkpoints an index looks up
CheckpointOrder = Literal["newest", "name", "size", "eval_loss"]
_JOB_NAME = select(Job.name).where(Job.id == Checkpoint.job_id).scalar_subquery()
_EVAL_LOSS = cast(func.jsonb_extract_path_text(Checkpoint.metrics, "eval_loss"), Double)
_ORDERS: dict[str, ColumnElement[Any]] = {
    "name": func.lower(_JOB_NAME),
    "size": -Checkpoint.num_bytes,
    "eval_loss": func.coalesce(_EVAL_LOSS, literal(float("inf"))),
}
RESUME = "resume/"  # the optimizer state, which only the trainer reads


def record(
    session: Session,
    *,
    owner_id: str,
    job_id: str,
    step: int,
    fence: int,
    path: str,
    manifest: dict[str, Any],
    metrics: dict[str, Any],
) -> Checkpoint:
    """Record a published checkpoint. Idempotent."""
    values = {
        "owner_id": owner_id,
        "job_id": job_id,
        "step": step,
        "fence": fence,
        "path": path,
        "num_bytes": sum(entry["size"] for entry in manifest["files"]),
        "manifest": manifest,
        "metrics": metrics,
    }
    session.execute(insert(Checkpoint).values(id=new_id(), **values).on_conflict_do_nothing())
    same = (Checkpoint.job_id == job_id, Checkpoint.step == step, Checkpoint.fence == fence)
    return session.execute(select(Checkpoint).where(*same)).scalar_one()


def get(session: Session, *, principal: Principal, checkpoint_id: str, for_update: bool = False) -> Checkpoint:
    """A checkpoint the user may see. Raises 404, and 410 for one that was deleted."""
    row = visible(session, Checkpoint, checkpoint_id, principal=principal, for_update=for_update)
    if row.state not in LIVE:
        message = _(
            "This checkpoint was deleted to free disk space. Its job keeps the newest, the best, pinned and "
            "regularly kept checkpoints; choose one of those."
        )
        raise PanelError(410, "checkpoint_deleted", message)
    return row


def pin(session: Session, *, principal: Principal, checkpoint_id: str, pinned: bool) -> Checkpoint:
    """Keep a checkpoint regardless of its job's limit, or no longer. An unpinned one stays until the next save."""
    own(session, Checkpoint, checkpoint_id, principal=principal)
    row = get(session, principal=principal, checkpoint_id=checkpoint_id)
    row.pinned = pinned
    session.flush()
    return row


def change_labels(session: Session, *, principal: Principal, checkpoint_id: str, changes: LabelChanges) -> Checkpoint:
    """Name, tag or describe a checkpoint. Raises PanelError: 404, 410, or 422 at the field that is wrong."""
    own(session, Checkpoint, checkpoint_id, principal=principal)
    row = get(session, principal=principal, checkpoint_id=checkpoint_id)
    labels.change(session, principal, row, changes)
    session.flush()
    return row


def delete(session: Session, *, principal: Principal, checkpoint_id: str) -> Checkpoint:
    """Move a checkpoint to the trash, pinned or not, and end its owner's exports and evaluations of it.

    Raises PanelError: 404, 410, or 409 while a job, a deployment or another user's task uses it.
    """
    job_id = get(session, principal=principal, checkpoint_id=checkpoint_id).job_id
    job = session.get(Job, job_id, with_for_update=True)  # first, as whatever changes checkpoints locks their job
    own(session, Checkpoint, checkpoint_id, principal=principal)
    row = get(session, principal=principal, checkpoint_id=checkpoint_id)
    if job is not None and job.finished_at is None:
        _refuse_to_take_from(session, job, checkpoint_id)
    refuse_in_use(session, [checkpoint_id], principal.user_id)
    background_tasks.cancel_of(session, BackgroundTask.checkpoint_id, checkpoint_id)
    name = job.name if job is not None else ""
    detail = f"step {row.step}"
    audit_log.record(session, "checkpoint_deleted", principal, subject=name, subject_id=checkpoint_id, detail=detail)
    row.deleted_at = func.now()
    return row


def restore(session: Session, checkpoint: Checkpoint) -> None:
    """Take a checkpoint, which is locked, out of the trash. Raises 404 while its job is there, which brings it back."""
    if session.scalar(select(Job.deleted_at).where(Job.id == checkpoint.job_id)) is not None:
        raise not_found()
    checkpoint.deleted_at = None


def purge(session: Session, row: Checkpoint) -> None:
    """Delete a checkpoint, which is locked, for good; the sweep removes its files. Raises PanelError (409) if a job,
    another user's task or a deployment uses it.
    """
    refuse_in_use(session, [row.id], row.owner_id)
    background_tasks.cancel_of(session, BackgroundTask.checkpoint_id, row.id)
    sharing.forget(session, row)
    row.state, row.deleted_at = "deleting", None


def _refuse_to_take_from(session: Session, job: Job, checkpoint_id: str) -> None:
    """Raise PanelError if the unfinished job that wrote a checkpoint may still resume from it."""
    if "newest" in retention_reasons.reasons(session, [job.id]).get(checkpoint_id, []):
        message = _(
            "The job “{job}” has not finished and may resume from this checkpoint. Cancel it or wait for its end.",
            job=job.name,
        )
        raise PanelError(409, "checkpoint_in_use", message)


def refuse_in_use(session: Session, ids: Sequence[str], owner_id: str) -> None:
    """Raise PanelError (409) if an unfinished job starts from one of these checkpoints, another user's task works on
    one, or a deployment serves one. All are of one owner, whose own tasks end with them.
    """
    started_from = Job.spec["base_model"].as_string()
    starts = or_(Job.resume_from_id.in_(ids), started_from.in_(ids))
    using = select(Job).where(starts, Job.state.not_in(TERMINAL))
    job = session.scalar(using.order_by(Job.owner_id != owner_id).limit(1))
    is_used = background_tasks.are_used_by_others(session, BackgroundTask.checkpoint_id, ids, owner_id)
    if is_used or (job is not None and job.owner_id != owner_id):
        raise sharing.used_by_another("checkpoint_in_use")
    if job is not None:
        message = _(
            "The job “{job}” starts from this checkpoint and has not finished. Cancel it or wait for its end.",
            job=job.name,
        )
        raise PanelError(409, "checkpoint_in_use", message)
    deployment_name = session.scalar(select(Deployment.name).where(Deployment.model_id.in_(ids)).limit(1))
    if deployment_name is not None:
        message = _(
            "The deployment “{name}” serves this checkpoint. Remove it, or deploy another one there.",
            name=deployment_name,
        )
        raise PanelError(409, "checkpoint_in_use", message)


def mark_for_deletion(session: Session, ids: Sequence[str]) -> None:
    """Hide ready checkpoints that are neither pinned nor used by a task; a sweep removes their files."""
    worked_on = select(BackgroundTask.checkpoint_id).where(
        BackgroundTask.state.in_(background_tasks.OPEN), BackgroundTask.checkpoint_id.is_not(None)
    )
    droppable = (
        Checkpoint.id.in_(ids),
        Checkpoint.state == "ready",
        ~Checkpoint.pinned,
        Checkpoint.id.not_in(worked_on),
    )
    session.execute(update(Checkpoint).where(*droppable).values(state="deleting"))


def mark_ready(session: Session, checkpoint_id: str) -> None:
    """A checkpoint that was damaged is intact again."""
    damaged = (Checkpoint.id == checkpoint_id, Checkpoint.state == "corrupt")
    session.execute(update(Checkpoint).where(*damaged).values(state="ready"))


def list_pending_deletion(session: Session, limit: int) -> list[tuple[str, str]]:
    """Checkpoints whose files are to be removed: id and path, the oldest first."""
    query = select(Checkpoint.id, Checkpoint.path).where(Checkpoint.state == "deleting")
    return [(row.id, row.path) for row in session.execute(query.order_by(Checkpoint.id).limit(limit))]


def mark_deleted(session: Session, checkpoint_id: str) -> None:
    """Record that the files of a checkpoint were removed."""
    gone = (Checkpoint.id == checkpoint_id, Checkpoint.state == "deleting")
    session.execute(update(Checkpoint).where(*gone).values(state="deleted"))


def list_checkpoints(
    session: Session,
    *,
    principal: Principal,
    job_id: str | None = None,
    limit: int = 100,
    after: str | None = None,
    search: str = "",
    tag: str = "",
    pinned: bool | None = None,
    owner: str | None = None,
    order: str = "newest",
) -> tuple[list[Checkpoint], str | None]:
    """The checkpoints the user may see, of one job or of all, and the cursor of the next page.

    `search` is a part of its name, notes, a tag or the job's name.
    """
    query = select(Checkpoint).where(Checkpoint.state.in_(LIVE))
    if job_id is not None:
        query = query.where(Checkpoint.job_id == job_id)
    if search:
        query = query.where(or_(labels.matches(Checkpoint, search), _is_of_job_named(session, principal, search)))
    if tag:
        query = query.where(labels.has_tag(Checkpoint, tag))
    if pinned is not None:
        query = query.where(Checkpoint.pinned == pinned)
    return sharing.listed(session, principal, query, Checkpoint, _ORDERS.get(order), limit, after, owner)


def _is_of_job_named(session: Session, principal: Principal, search: str) -> ColumnElement[bool]:
    """Whether a text is a part of the name of a checkpoint's job. A few such jobs are looked up by an index; of many,
    the first checkpoints of a list soon have one.
    """
    db.plan_each_time(session)
    shared = select(Checkpoint.job_id).where(visible_parts(Checkpoint, principal)["shared"])
    may_see = or_(visible_to(Job.owner_id, principal), Job.id.in_(shared))
    ids = session.scalars(select(Job.id).where(labels.is_named(Job, search), may_see).limit(MAX_NAMED_JOBS + 1)).all()
    return Checkpoint.job_id.in_(ids) if len(ids) <= MAX_NAMED_JOBS else _JOB_NAME.icontains(search, autoescape=True)


def jobs_with_checkpoints(session: Session, *, principal: Principal) -> list[tuple[str, str]]:
    """The ID and name of the user's newest jobs that have checkpoints, newest first."""
    has_some = select(Checkpoint.job_id).where(Checkpoint.state.in_(LIVE), visible_to(Checkpoint.owner_id, principal))
    rows = session.execute(select(Job.id, Job.name).where(Job.id.in_(has_some)).order_by(Job.id.desc()).limit(MAX_JOBS))
    return [(row.id, row.name) for row in rows]


def best_of_newest_jobs(session: Session, *, principal: Principal, limit: int) -> list[Checkpoint]:
    """Of the jobs that saved last, each one's intact checkpoint of the lowest validation loss, else its newest."""
    own = (visible_to(Checkpoint.owner_id, principal), Checkpoint.state == "ready")
    newest = func.max(Checkpoint.id)
    ids = session.scalars(
        select(Checkpoint.job_id).where(*own).group_by(Checkpoint.job_id).order_by(newest.desc()).limit(limit)
    ).all()
    best = _best(session, ids)
    return [best[job_id] for job_id in ids]


def best_of_job(session: Session, job_id: str) -> Checkpoint | None:
    """A job's intact checkpoint of the lowest validation loss, else its newest; None if it has none."""
    return _best(session, [job_id]).get(job_id)


def _best(session: Session, ids: Sequence[str]) -> dict[str, Checkpoint]:
    """The same of several jobs."""
    reasons = retention_reasons.reasons(session, ids)
    intact = select(Checkpoint).where(usable_of(ids))
    chosen: dict[str, Checkpoint] = {}
    for row in session.scalars(intact.order_by(Checkpoint.id)):
        if row.job_id not in chosen or "best" not in reasons.get(chosen[row.job_id].id, []):
            chosen[row.job_id] = row
    return chosen


def archive_name(session: Session, *, checkpoint: Checkpoint) -> str:
    """The name a download is saved under: the job's name as a file name, and the step."""
    name = session.execute(select(Job.name).where(Job.id == checkpoint.job_id)).scalar_one()
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    return f"{stem}-step-{checkpoint.step}.zip"


def files(checkpoint: Checkpoint) -> list[Path]:
    """All files of the manifest but the optimizer state. Raises 409 if one is missing."""
    directory = storage.checkpoint(checkpoint.path)
    paths = [directory / file.name for file in _shared(checkpoint)]
    missing = next((path.name for path in paths if not path.is_file()), None)
    if missing is not None:
        message = _("The file {name} of this checkpoint is missing from the disk.", name=missing)
        raise PanelError(409, "checkpoint_missing", message)
    return paths


def _shared(checkpoint: Checkpoint) -> list[StoredFile]:
    return [file for file in checkpoint.manifest.files if not file.name.startswith(RESUME)]


def zip_chunks(checkpoint: Checkpoint) -> Iterator[bytes]:
    """The checkpoint as a zip archive, made while it is sent: weights do not compress, so nothing is compressed.

    Its manifest lists what is in the archive.
    """
    out = _ChunkBuffer()
    directory = storage.checkpoint(checkpoint.path)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in files(checkpoint):
            with (
                path.open("rb") as source,
                archive.open(_entry(checkpoint, path, directory), "w", force_zip64=True) as target,
            ):
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield out.take()
        archive.writestr(_entry(checkpoint, directory / MANIFEST, directory), shared_manifest(checkpoint))
    yield out.take()


def shared_manifest(checkpoint: Checkpoint) -> str:
    """The manifest of a checkpoint without the optimizer state, as JSON."""
    manifest = checkpoint.manifest.model_copy(update={"files": _shared(checkpoint)})
    return json.dumps(manifest.model_dump(exclude_unset=True), indent=2, ensure_ascii=False)


def _entry(checkpoint: Checkpoint, path: Path, directory: Path) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(str(path.relative_to(directory)), checkpoint.created_at.timetuple()[:6])
    entry.external_attr = 0o644 << 16
    return entry


class _ChunkBuffer(io.RawIOBase):
    """An unseekable stream whose contents are read and cleared in chunks."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pending += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = bytes(self._pending)
        self._pending.clear()
        return taken
