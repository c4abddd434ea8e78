"""Files and uploads under /v1: they are corpora, with the upload as it was sent. What jobs trained is described in a
file of results, which has the ID of its job.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import db, idempotency, queue, storage
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import Corpus, Job
from app.core.names import checked_name
from app.core.openai_models import Upload, UploadPart
from app.core.principal import Principal, not_found, visible_to
from app.core.settings import settings
from app.corpora import open_uploads, parted_uploads, problems, service, uploads
from app.corpora.uploads import Label
from app.openai import objects, results
from app.openai.objects import After, RetryCount
from app.web import multipart
from app.web.auth import Reader, Submitter
from app.web.json_body import StrictRoute
from trainer.formats import corpus_formats

router = APIRouter(route_class=StrictRoute)

PREFIX, UPLOAD_PREFIX, PART_PREFIX = "file-", "upload_", "part_"
FINE_TUNE, RESULTS = "fine-tune", "fine-tune-results"
FORM_BYTES = 2**20  # of a form besides its file
MIN_LIFETIME, MAX_LIFETIME = 3600, 2_592_000  # seconds
MAX_LISTED = 10_000


# ---- objects --------------------------------------------------------------------------------------------------------


def file_answer(corpus: Corpus) -> dict[str, Any]:
    """A corpus as a file. What is wrong with a training file is an error of the job that uses it."""
    is_bad = corpus.state == "failed" and corpus.purpose in (None, FINE_TUNE)
    return {
        "id": f"{PREFIX}{corpus.id}",
        "object": "file",
        "bytes": corpus.num_bytes,
        "created_at": objects.seconds(corpus.created_at),
        "expires_at": objects.seconds(corpus.expires_at),
        "filename": corpus.filename,
        "purpose": corpus.purpose or FINE_TUNE,
        "status": "error" if is_bad else "processed",
        "status_details": problems.first_sentence(corpus.problems) if is_bad else None,
    }


def _results_answer(job: Job, path: Path) -> dict[str, Any]:
    return {
        "id": f"{PREFIX}{job.id}",
        "object": "file",
        "bytes": path.stat().st_size,
        "created_at": objects.seconds(job.finished_at),
        "expires_at": None,
        "filename": results.FILENAME,
        "purpose": RESULTS,
        "status": "processed",
        "status_details": None,
    }


def _upload_answer(upload: Upload, corpus: Corpus | None = None) -> dict[str, Any]:
    return {
        "id": f"{UPLOAD_PREFIX}{upload.id}",
        "object": "upload",
        "bytes": upload.num_bytes,
        "created_at": objects.seconds(upload.created_at),
        "expires_at": objects.seconds(upload.expires_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": "expired" if open_uploads.is_expired(upload) else upload.state,
        "file": None if corpus is None else file_answer(corpus),
    }


def _part_answer(part: UploadPart) -> dict[str, Any]:
    return {
        "id": f"{PART_PREFIX}{part.id}",
        "object": "upload.part",
        "created_at": objects.seconds(part.created_at),
        "upload_id": f"{UPLOAD_PREFIX}{part.upload_id}",
    }


# ---- creating files -------------------------------------------------------------------------------------------------


def file_label(filename: str, purpose: str, lifetime: int | None) -> Label:
    """What a file is called and for. Its name may have any ending: without a known one it is JSON Lines, or text if it
    is to be pretrained on. Raises PanelError.
    """
    if not purpose:
        message = _("Say what the file is for: purpose is {purpose} for training.", purpose=FINE_TUNE)
        raise bad_field("purpose", "purpose_missing", message)
    purpose = checked_name(purpose, max_length=64, field="purpose")
    filename = checked_name(filename, max_length=uploads.MAX_FILENAME_LENGTH, field="file")
    form = corpus_formats.format_of(filename)
    return Label(
        filename=filename,
        name=(filename if form is None else corpus_formats.stem_of(filename))[: service.MAX_NAME_LENGTH],
        format=form or ("txt" if purpose == "pretrain" else "jsonl"),
        purpose=purpose,
        lifetime=lifetime,
    )


def _lifetime(fields: dict[str, str]) -> int | None:
    """The seconds of `expires_after` in a form."""
    anchor, text = fields.get("expires_after[anchor]", "created_at"), fields.get("expires_after[seconds]")
    if anchor != "created_at":
        raise bad_field("expires_after", "expiry_invalid", _("A file can expire after created_at only."))
    if text is None:
        return None
    seconds = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if not MIN_LIFETIME <= seconds <= MAX_LIFETIME:
        message = _("A file can expire after {low} to {high} seconds.", low=MIN_LIFETIME, high=MAX_LIFETIME)
        raise bad_field("expires_after", "expiry_invalid", message)
    return seconds


@router.post("/files")
async def create_file(request: Request, principal: Submitter, retry_count: RetryCount = 0) -> dict[str, Any]:
    """Upload a file as a form with the fields file, purpose and expires_after."""
    await run_in_threadpool(uploads.check_declared, request.headers.get("content-length"))
    stored: uploads.StoredUpload | None = None
    fields: dict[str, str] = {}
    try:
        async for part in multipart.parts(request, settings().max_upload_bytes + FORM_BYTES):
            if part.name == "file" and part.filename is not None and stored is None:
                stored = await uploads.store(part.filename or "upload", part.pieces)
            elif part.filename is None:
                fields[part.name] = await part.text()
        if stored is None:
            raise bad_field("file", "file_missing", _("The form has no file."))
        label = file_label(stored.filename, fields.get("purpose", ""), _lifetime(fields))
    except BaseException:
        if stored is not None:
            await run_in_threadpool(stored.discard)
        raise
    earlier = await run_in_threadpool(_sent_before, principal, label, stored) if retry_count else None
    if earlier is not None:
        await run_in_threadpool(stored.discard)
        return file_answer(earlier)
    return file_answer(await uploads.record(principal, label, stored))


def _sent_before(principal: Principal, label: Label, stored: uploads.StoredUpload) -> Corpus | None:
    """The file of a request whose answer did not arrive, so that its client sends it again."""
    same = (
        Corpus.owner_id == principal.user_id,
        Corpus.sha256 == stored.sha256,
        Corpus.filename == label.filename,
        Corpus.purpose == label.purpose,
        Corpus.deleted_at.is_(None),
        Corpus.created_at > func.now() - idempotency.RETRY_MEMORY,
    )
    with db.transaction() as session:
        return session.scalar(select(Corpus).where(*same).order_by(Corpus.id.desc()).limit(1))


# ---- reading and deleting them --------------------------------------------------------------------------------------


@router.get("/files")
def list_files(
    principal: Reader,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = MAX_LISTED,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """List your files and those that ship with Athanor, newest first."""
    place = None if after is None else objects.row_id(PREFIX, after)
    with db.transaction() as session:
        corpora = _page(session, _corpora(principal, purpose), Corpus.id, order, place, limit)
        jobs = (
            _page(session, results.jobs(principal), Job.id, order, place, limit) if purpose in (None, RESULTS) else []
        )
        rows = sorted([*corpora, *jobs], key=lambda row: str(row.id), reverse=order == "desc")
        data = [_answer(session, row) for row in rows[:limit]]
    return objects.page(data, len(rows) > limit)


def _corpora(principal: Principal, purpose: str | None) -> Any:
    query = select(Corpus).where(visible_to(Corpus.owner_id, principal))
    return query if purpose is None else query.where(func.coalesce(Corpus.purpose, FINE_TUNE) == purpose)


def _page(session: Session, query: Any, key: Any, order: str, after: str | None, limit: int) -> list[Any]:
    if after is not None:
        query = query.where(key < after if order == "desc" else key > after)
    return list(session.scalars(query.order_by(key.desc() if order == "desc" else key).limit(limit + 1)))


def _answer(session: Session, row: Corpus | Job) -> dict[str, Any]:
    return file_answer(row) if isinstance(row, Corpus) else _results_answer(row, results.file(session, row))


def _get(session: Session, principal: Principal, file_id: str) -> Corpus | Job:
    """The corpus of a file, or the job whose results it has. Raises 404."""
    row_id = objects.row_id(PREFIX, file_id)
    row = session.scalar(_corpora(principal, None).where(Corpus.id == row_id))
    row = row or session.scalar(results.jobs(principal).where(Job.id == row_id))
    if row is None:
        raise not_found()
    assert isinstance(row, Corpus | Job)
    return row


@router.get("/files/{file_id}")
def retrieve_file(principal: Reader, file_id: str) -> dict[str, Any]:
    """Get a file."""
    with db.transaction() as session:
        return _answer(session, _get(session, principal, file_id))


@router.get("/files/{file_id}/content")
def read_file(principal: Reader, file_id: str) -> FileResponse:
    """The bytes of a file, as they were sent."""
    with db.transaction() as session:
        row = _get(session, principal, file_id)
        if isinstance(row, Corpus) and row.num_uploads > 1:
            message = _("This corpus has {n} files, so it cannot be read as one.", n=row.num_uploads)
            raise bad_field("file_id", "file_of_many", message)
        path = storage.corpus(row.id) / "upload" if isinstance(row, Corpus) else results.file(session, row)
    if not path.is_file():
        raise not_found()
    return FileResponse(path, media_type="application/octet-stream")


@router.delete("/files/{file_id}")
def delete_file(principal: Submitter, file_id: str) -> dict[str, Any]:
    """Delete a file. Refused while an unfinished job uses it, and for results, which go with their job."""
    with db.transaction() as session:
        row = _get(session, principal, file_id)
        if isinstance(row, Job):
            message = _("The results of a job are deleted with the job.")
            raise bad_field("file_id", "file_of_job", message)
        service.delete_corpus(session, principal=principal, corpus_id=row.id)
    return {"id": f"{PREFIX}{row.id}", "object": "file", "deleted": True}


# ---- uploads in parts -----------------------------------------------------------------------------------------------


class ExpiresAfter(BaseModel):
    """When a file expires."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_LIFETIME, le=MAX_LIFETIME)


class UploadRequest(BaseModel):
    """The file that is going to be uploaded."""

    bytes: int = Field(ge=1, le=2**62)
    filename: str
    mime_type: str = ""
    purpose: str
    expires_after: ExpiresAfter | None = None


class CompleteRequest(BaseModel):
    """The parts of a file in their order."""

    part_ids: list[str] = Field([], max_length=parted_uploads.MAX_PARTS)
    md5: str | None = None


@router.post("/uploads")
def create_upload(principal: Submitter, body: UploadRequest) -> dict[str, Any]:
    """Begin to upload a file in parts."""
    lifetime = None if body.expires_after is None else body.expires_after.seconds
    label = file_label(body.filename, body.purpose, lifetime)
    with db.transaction() as session:
        return _upload_answer(parted_uploads.begin(session, principal=principal, what=label, num_bytes=body.bytes))


@router.post("/uploads/{upload_id}/parts")
async def add_part(request: Request, principal: Submitter, upload_id: str) -> dict[str, Any]:
    """Add a part: a form with the field data."""
    row_id = objects.row_id(UPLOAD_PREFIX, upload_id)
    await run_in_threadpool(_upload, principal, row_id)
    async for part in multipart.parts(request, settings().max_upload_bytes + FORM_BYTES):
        if part.name == "data":
            return _part_answer(await parted_uploads.add_part(principal, row_id, part.pieces))
    raise bad_field("data", "file_missing", _("The form has no file."))


def _upload(principal: Principal, row_id: str) -> Upload:
    with db.transaction() as session:
        return open_uploads.get(session, principal=principal, upload_id=row_id)


@router.post("/uploads/{upload_id}/complete")
def complete_upload(principal: Submitter, upload_id: str, body: CompleteRequest) -> dict[str, Any]:
    """Put the parts together in the order given here."""
    row_id = objects.row_id(UPLOAD_PREFIX, upload_id)
    upload = _upload(principal, row_id)
    label = file_label(upload.filename, upload.purpose or "", upload.file_lifetime)
    upload, corpus = parted_uploads.complete(
        principal=principal,
        upload_id=row_id,
        part_ids=[part_id.removeprefix(PART_PREFIX) for part_id in body.part_ids],
        md5=body.md5,
        what=label,
    )
    queue.flush_outbox()
    return _upload_answer(upload, corpus)


@router.post("/uploads/{upload_id}/cancel")
def cancel_upload(principal: Submitter, upload_id: str) -> dict[str, Any]:
    """Cancel an upload; its parts are deleted."""
    row_id = objects.row_id(UPLOAD_PREFIX, upload_id)
    with db.transaction() as session:
        upload = open_uploads.cancel(session, principal=principal, upload_id=row_id)
    open_uploads.remove_files(row_id)
    return _upload_answer(upload)
