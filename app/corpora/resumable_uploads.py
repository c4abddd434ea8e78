"""Files that are uploaded resumably: what a request has sent is kept, however it ends, and the next one goes on there.

One request at a time adds to an upload. Another one for the same upload ends it: a client that resumes has often lost
its connection long before this side notices.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio import CancelScope, to_thread
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import db, paging, storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import number
from app.core.i18n import _
from app.core.openai_models import Upload
from app.core.principal import Principal, not_found, visible_to
from app.corpora import open_uploads
from app.corpora.open_uploads import LIFETIME
from app.web.resumable_file import Checksum, ResumableFile
from app.web.uploads import drain


def begin(principal: Principal, *, filename: str, num_bytes: int, tus_metadata: str) -> Upload:
    """Begin an upload of so many bytes. Raises PanelError: over the limit, or without room on the disk."""
    if num_bytes == 0:
        raise bad_field("Upload-Length", "file_empty", _("The file is empty."))
    with db.transaction() as session:
        upload = open_uploads.begin(session, principal=principal, filename=filename, num_bytes=num_bytes)
        upload.tus_metadata = tus_metadata
        session.add(upload)
        session.flush()
        session.refresh(upload)
    return upload


def data(upload_id: str) -> Path:
    """What has arrived of a file."""
    return storage.upload(upload_id) / "data"


def get(session: Session, principal: Principal, upload_id: str, for_update: bool = False) -> Upload:
    """A resumable upload of the user that was not cancelled. Raises PanelError: 404, or 410 for an expired one."""
    upload = open_uploads.get(session, principal=principal, upload_id=upload_id, for_update=for_update)
    if upload.tus_metadata is None or upload.state == "cancelled":
        raise not_found()
    if open_uploads.is_expired(upload):
        message = _("Nothing was added to this upload for a day, so it was deleted. Begin another one.")
        raise PanelError(410, "upload_expired", message)
    return upload


def list_open(
    session: Session, *, principal: Principal, limit: int = 100, after: str | None = None
) -> tuple[list[Upload], str | None]:
    """The uploads that no corpus has been made of yet, newest first, and the cursor of the next page."""
    own = (Upload.tus_metadata.is_not(None), visible_to(Upload.owner_id, principal))
    query = select(Upload).where(*own, *open_uploads.IS_OPEN)
    return paging.newest(session, query, Upload.id, limit, after)


async def offset(principal: Principal, upload_id: str) -> tuple[Upload, int]:
    """An upload, and how many of its bytes are on disk. Whatever is sending to it is ended first. Raises PanelError."""
    upload = await to_thread.run_sync(read, principal, upload_id)
    if upload.sha256 is not None:  # all of it has arrived
        return upload, upload.num_bytes
    async with _alone(upload_id):
        file = await to_thread.run_sync(ResumableFile, data(upload_id), upload.num_bytes)
        return await _closed(upload_id, file, True), file.offset


async def append(
    principal: Principal, upload_id: str, at: int, pieces: AsyncIterator[bytes], checksum: Checksum | None = None
) -> tuple[Upload, int]:
    """Add the body of a request, which begins at an offset; returns the new offset. Raises PanelError.

    What has arrived is kept if the request breaks off, unless it has a checksum.
    """
    upload = await to_thread.run_sync(read, principal, upload_id)
    if upload.sha256 is not None:  # all of it has arrived
        raise _another_offset(upload.num_bytes)
    async with _alone(upload_id) as transfer:
        path = data(upload_id)
        file = await to_thread.run_sync(ResumableFile, path, upload.num_bytes, checksum)
        is_whole = False
        try:
            if at != file.offset:
                raise _another_offset(file.offset)
            with transfer.reading:
                await drain(pieces, file.write)
                is_whole = True
        finally:
            with CancelScope(shield=True):
                upload = await _closed(upload_id, file, is_whole)
        if not is_whole:
            message = _("Another request goes on with this upload.")
            raise PanelError(409, "upload_taken_over", message, headers={"Upload-Offset": str(file.offset)})
    return upload, file.offset


def _another_offset(present: int) -> PanelError:
    message = _("The upload goes on at byte {n}.", n=number(present))
    return PanelError(409, "upload_offset", message, headers={"Upload-Offset": str(present)})


def read(principal: Principal, upload_id: str) -> Upload:
    """A resumable upload of the user, read in a transaction of its own. Raises PanelError as `get` does."""
    with db.transaction() as session:
        return get(session, principal, upload_id)


async def _closed(upload_id: str, file: ResumableFile, is_whole: bool) -> Upload:
    """Close the file, and record how far it is."""

    def close() -> Upload:
        file.close(is_whole)
        sha256 = file.sha256() if file.is_complete else None
        with db.transaction() as session:
            upload = session.get(Upload, upload_id, with_for_update=True)
            if upload is None:  # deleted meanwhile
                raise not_found()
            upload.num_received, upload.sha256, upload.expires_at = file.offset, sha256, func.now() + LIFETIME
            session.flush()
            session.refresh(upload)
            return upload

    return await to_thread.run_sync(close)


async def cancel(principal: Principal, upload_id: str) -> None:
    """Delete an upload and what has arrived of it. Raises PanelError: 404, or 422 for a completed one."""
    await to_thread.run_sync(read, principal, upload_id)
    async with _alone(upload_id):
        await to_thread.run_sync(_cancel, principal, upload_id)


def _cancel(principal: Principal, upload_id: str) -> None:
    with db.transaction() as session:
        open_uploads.cancel(session, principal=principal, upload_id=upload_id)
    open_uploads.remove_files(upload_id)


def received(session: Session, principal: Principal, upload_ids: Sequence[str]) -> list[Upload]:
    """Uploads all of whose bytes have arrived, in this order, locked. Raises PanelError."""
    if len(set(upload_ids)) != len(upload_ids):
        raise bad_field("uploads", "upload_twice", _("An upload is named twice. Name each once."))
    query = select(Upload).where(
        Upload.id.in_(upload_ids), Upload.tus_metadata.is_not(None), visible_to(Upload.owner_id, principal)
    )
    rows = {upload.id: upload for upload in session.scalars(query.order_by(Upload.id).with_for_update())}
    for upload_id in upload_ids:
        upload = rows.get(upload_id)
        if upload is None:
            message = _("There is no upload {id}, or it is not yours.", id=upload_id)
            raise bad_field("uploads", "upload_unknown", message)
        open_uploads.require_open(upload)
        if upload.sha256 is None:
            message = _("“{filename}” has not arrived completely. Go on with its upload.", filename=upload.filename)
            raise bad_field("uploads", "upload_incomplete", message)
    return [rows[upload_id] for upload_id in upload_ids]


# ---- one request at a time ------------------------------------------------------------------------------------------


@dataclass
class _Transfer:
    """A request that has an upload for itself, in this process."""

    reading: CancelScope = field(default_factory=CancelScope)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


_transfers: dict[str, _Transfer] = {}


@asynccontextmanager
async def _alone(upload_id: str) -> AsyncIterator[_Transfer]:
    """Have an upload for oneself: a request of this process that has it is ended, and what it read is kept."""
    while (other := _transfers.get(upload_id)) is not None:
        other.reading.cancel()
        await other.ended.wait()
    transfer = _transfers[upload_id] = _Transfer()
    try:
        yield transfer
    finally:
        del _transfers[upload_id]
        transfer.ended.set()
