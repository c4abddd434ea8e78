"""Files that are uploaded in parts, as OpenAI's API has it. A completed one is a corpus.

Parts may be sent again, in any order and at the same time. Which of them make up the file, and in which order, is said
when the upload is completed.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from anyio import to_thread
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import db, disk, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.models import Corpus
from app.core.openai_models import Upload, UploadPart
from app.core.principal import Principal
from app.core.settings import settings
from app.corpora import open_uploads, service
from app.corpora.uploads import Label, too_large
from app.web.uploads import WRITE_BYTES, StreamedUpload, save_upload

MAX_PARTS = 10_000
COPIES = 3  # how often all of a file may be stored in parts: sent again, they are stored again
SMALLEST_LIMIT = 64 * 2**20  # bytes of parts that any upload may have


def begin(session: Session, *, principal: Principal, what: Label, num_bytes: int) -> Upload:
    """Begin an upload of so many bytes. Raises PanelError: over the limit, or without room on the disk."""
    upload = open_uploads.begin(session, principal=principal, filename=what.filename, num_bytes=num_bytes)
    upload.purpose, upload.file_lifetime = what.purpose, what.lifetime
    session.add(upload)
    session.flush()
    return upload


async def add_part(principal: Principal, upload_id: str, pieces: AsyncIterator[bytes]) -> UploadPart:
    """Store one part. A failed one leaves no file. Raises PanelError."""
    room = await to_thread.run_sync(_room, principal, upload_id)
    part_id = new_id()
    path = storage.upload(upload_id) / part_id
    sink = await to_thread.run_sync(StreamedUpload, path, room, _parts_too_large())
    await save_upload(pieces, sink)
    try:
        return await to_thread.run_sync(_record_part, principal, upload_id, part_id, sink.num_bytes)
    except BaseException:
        await to_thread.run_sync(path.unlink, True)
        raise


def _room(principal: Principal, upload_id: str) -> int:
    """How many bytes further parts of an open upload may have."""
    with db.transaction() as session:
        upload = _open(session, principal, upload_id)
        totals = select(func.count(), func.coalesce(func.sum(UploadPart.num_bytes), 0))
        num_parts, num_bytes = session.execute(totals.where(UploadPart.upload_id == upload_id)).one()
    room = max(SMALLEST_LIMIT, COPIES * upload.num_bytes) - int(num_bytes)
    if num_parts >= MAX_PARTS or room <= 0:
        raise _parts_too_large()
    disk.require_room(1)
    return room


def _parts_too_large() -> PanelError:
    message = _("The parts of this upload are larger together than the file that was announced, or too many.")
    return bad_field("data", "parts_too_large", message, 413)


def _record_part(principal: Principal, upload_id: str, part_id: str, num_bytes: int) -> UploadPart:
    with db.transaction() as session:
        _open(session, principal, upload_id)
        part = UploadPart(id=part_id, upload_id=upload_id, num_bytes=num_bytes)
        session.add(part)
        session.flush()
        return part


def _open(session: Session, principal: Principal, upload_id: str) -> Upload:
    """An upload that is neither completed nor cancelled, locked. Raises PanelError."""
    upload = open_uploads.get(session, principal=principal, upload_id=upload_id, for_update=True)
    open_uploads.require_open(upload)
    return upload


def complete(
    *, principal: Principal, upload_id: str, part_ids: Sequence[str], md5: str | None, what: Label
) -> tuple[Upload, Corpus]:
    """Put the parts together in this order and record the file. Sent again with the same parts, it has no effect.

    Raises PanelError: 404, for unknown parts, or if the file has another length or MD5 than announced.
    """
    with db.transaction() as session:
        upload = open_uploads.get(session, principal=principal, upload_id=upload_id)
        if upload.state == "completed" and upload.part_ids == list(part_ids) and upload.corpus_id is not None:
            return upload, service.get_corpus(session, principal=principal, corpus_id=upload.corpus_id)
        upload = _open(session, principal, upload_id)
        _check_parts(session, upload, part_ids)
    corpus_id = new_id()
    try:
        sha256 = _put_together(upload_id, part_ids, md5, storage.corpus(corpus_id) / "upload")
        with db.transaction() as session:
            upload = _open(session, principal, upload_id)
            corpus = service.create_corpus(
                session,
                corpus_id=corpus_id,
                owner_id=principal.user_id,
                num_bytes=upload.num_bytes,
                sha256=sha256,
                **vars(what),
            )
            upload.part_ids = list(part_ids)
            open_uploads.complete(session, upload, corpus_id)
    except BaseException:
        service.remove_files(corpus_id)
        raise
    open_uploads.remove_files(upload_id)
    return upload, corpus


def _check_parts(session: Session, upload: Upload, part_ids: Sequence[str]) -> None:
    query = select(UploadPart.id, UploadPart.num_bytes).where(UploadPart.upload_id == upload.id)
    sizes = {row.id: row.num_bytes for row in session.execute(query)}
    unknown = next((part_id for part_id in part_ids if part_id not in sizes), None)
    if unknown is not None:
        raise bad_field("part_ids", "part_unknown", _("This upload has no part {id}.", id=unknown[:100]))
    total = sum(sizes[part_id] for part_id in part_ids)
    if total != upload.num_bytes:
        message = _("Bytes in the parts: {total}; announced: {bytes}.", total=total, bytes=upload.num_bytes)
        raise bad_field("part_ids", "upload_incomplete", message)


def _put_together(upload_id: str, part_ids: Sequence[str], md5: str | None, path: Path) -> str:
    """Write the file and return its SHA-256. Raises PanelError for another MD5."""
    sink = StreamedUpload(path, settings().max_upload_bytes, too_large())
    digest = hashlib.md5(usedforsecurity=False)
    try:
        for part_id in part_ids:
            with (storage.upload(upload_id) / part_id).open("rb") as part:
                while piece := part.read(WRITE_BYTES):
                    digest.update(piece)
                    sink.write([piece])
        actual = digest.hexdigest()
        if md5 is not None and md5.strip().lower() != actual:
            message = _("The MD5 of the file is {md5}. Upload the parts that differ again.", md5=actual)
            raise bad_field("md5", "md5_differs", message)
        return sink.finish()
    finally:
        sink.discard()
