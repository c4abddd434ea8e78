"""Files that are being uploaded, in parts or resumably: their rows, and how they begin, end and expire."""

import shutil
from datetime import timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.core import db, deleted_directories, disk, quotas, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.openai_models import Upload, UploadPart
from app.core.principal import Principal, not_found, visible_to
from app.core.settings import settings
from app.corpora.uploads import too_large

LIFETIME = timedelta(days=1)  # of an upload to which nothing is added, and which is not completed
MEMORY = timedelta(days=1)  # how long it is known after that
MAX_OPEN = 20_000  # of one user
BATCH = 10_000  # rows that one sweep forgets
# The conditions of an upload that accepts more.
IS_OPEN: tuple[ColumnElement[bool], ...] = (Upload.state == "pending", Upload.expires_at > func.now())
BEGINNING_LOCK = 0x75706C6F6164  # of PostgreSQL; any number that nothing else uses


def begin(session: Session, *, principal: Principal, filename: str, num_bytes: int) -> Upload:
    """A new upload of so many bytes, which the caller completes with what its protocol knows, and adds.

    Room is kept for the rest of all open uploads, so that two that fit one at a time do not fill the disk together.
    Raises PanelError: over the limit, without room on the disk, or with too many open uploads.
    """
    if num_bytes > settings().max_upload_bytes:
        raise too_large()
    session.execute(select(func.pg_advisory_xact_lock(BEGINNING_LOCK)))
    announced = func.coalesce(func.sum(Upload.num_bytes - Upload.num_received), 0)
    disk.require_room(2 * num_bytes + int(session.scalar(select(announced).where(*IS_OPEN)) or 0))  # and its text
    rest = select(announced).where(*IS_OPEN, Upload.owner_id == principal.user_id)
    quotas.check_disk(session, principal.user_id, num_bytes + int(session.scalar(rest) or 0))
    own = select(func.count()).where(*IS_OPEN, Upload.owner_id == principal.user_id)
    if (session.scalar(own) or 0) >= MAX_OPEN:
        message = _("You have {n} unfinished uploads. Complete or delete some of them first.", n=MAX_OPEN)
        raise PanelError(429, "uploads_open", message)
    return Upload(owner_id=principal.user_id, filename=filename, num_bytes=num_bytes, expires_at=func.now() + LIFETIME)


def get(session: Session, *, principal: Principal, upload_id: str, for_update: bool = False) -> Upload:
    """An upload of the user. Raises 404."""
    query = select(Upload).where(Upload.id == upload_id, visible_to(Upload.owner_id, principal))
    upload = session.scalar(query.with_for_update() if for_update else query)
    if upload is None:
        raise not_found()
    return upload


def is_expired(upload: Upload) -> bool:
    """Whether an upload that was not completed accepts nothing more."""
    return upload.state == "pending" and upload.expires_at < db.now()


def require_open(upload: Upload) -> None:
    """Raise PanelError for an upload that is completed, cancelled or expired."""
    if upload.state != "pending" or is_expired(upload):
        raise _closed("expired" if upload.state == "pending" else upload.state)


def _closed(state: str) -> PanelError:
    message = _("This upload is {state}. Begin another one.", state=state)
    return bad_field("upload_id", "upload_closed", message)


def cancel(session: Session, *, principal: Principal, upload_id: str) -> Upload:
    """Cancel an upload; call `remove_files` after the commit. Raises PanelError: 404, or for a completed one."""
    upload = get(session, principal=principal, upload_id=upload_id, for_update=True)
    if upload.state == "completed":
        raise _closed(upload.state)
    upload.state = "cancelled"
    _forget_content(session, upload)
    return upload


def complete(session: Session, upload: Upload, corpus_id: str) -> None:
    """The file of an upload belongs to a corpus now; call `remove_files` after the commit."""
    upload.state, upload.corpus_id = "completed", corpus_id
    _forget_content(session, upload)


def _forget_content(session: Session, upload: Upload) -> None:
    deleted_directories.note(session, storage.upload(upload.id))  # if this process dies before it removes the files
    for part in session.scalars(select(UploadPart).where(UploadPart.upload_id == upload.id)):
        session.delete(part)


def remove_files(upload_id: str) -> None:
    """Delete the bytes of an upload that is completed or cancelled."""
    shutil.rmtree(storage.upload(upload_id), ignore_errors=True)


def forget_expired(session: Session) -> None:
    """Delete the rows of uploads a while after their end; the sweep removes the bytes of those not completed."""
    old = select(Upload).where(Upload.expires_at < func.now() - MEMORY)
    for upload in session.scalars(old.limit(BATCH).with_for_update(skip_locked=True)):
        deleted_directories.note(session, storage.upload(upload.id))
        session.delete(upload)
