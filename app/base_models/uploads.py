"""Streams the uploaded files of a base model to disk, one by one, under one limit for their total size."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from anyio import to_thread

from app.base_models import names, service
from app.core import db, quotas, storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import file_size
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.models import ImportedModel
from app.core.principal import Principal
from app.core.settings import settings
from app.web import uploads


async def receive(
    principal: Principal, model_id: str, name: str, declared: str | None, stream: AsyncIterator[bytes]
) -> ImportedModel:
    """Store one file; it replaces one of the same name. `declared` is the Content-Length header.

    A failed upload leaves no file. Raises PanelError.
    """
    stored_name = names.stored_name(name)
    await to_thread.run_sync(_open, principal, model_id)
    max_bytes = settings().max_model_bytes - await to_thread.run_sync(_stored_bytes, model_id, stored_name)
    too_large = _too_large()
    await to_thread.run_sync(uploads.check_declared, declared, max_bytes, too_large)
    incoming = storage.base_model(model_id) / f".{new_id()}"
    upload = await to_thread.run_sync(uploads.StreamedUpload, incoming, max_bytes, too_large)
    try:
        await uploads.save_upload(stream, upload)
        return await to_thread.run_sync(_move_into_place, principal, model_id, incoming, stored_name)
    finally:
        await to_thread.run_sync(partial(incoming.unlink, missing_ok=True))


def _move_into_place(principal: Principal, model_id: str, incoming: Path, stored_name: str) -> ImportedModel:
    """Rename a complete file to its final name. Raises PanelError if the import, which reads the files, has started."""
    with db.transaction() as session:
        model = service.receive(session, principal=principal, model_id=model_id)
        others = sum(size for name, size in listed(model_id) if name != stored_name)
        num_bytes = incoming.stat().st_size + others
        quotas.check_disk(session, principal.user_id, num_bytes - model.num_bytes)
        model.num_bytes = num_bytes
        incoming.rename(incoming.with_name(stored_name))
    return model


def _open(principal: Principal, model_id: str) -> ImportedModel:
    with db.transaction() as session:
        return service.receive(session, principal=principal, model_id=model_id)


def _stored_bytes(model_id: str, except_name: str) -> int:
    files = storage.base_model(model_id).glob("*")
    return sum(path.stat().st_size for path in files if path.is_file() and path.name != except_name)


def _too_large() -> PanelError:
    limit = file_size(settings().max_model_bytes)
    message = _("The files of a base model can have at most {limit} in total.", limit=limit)
    return bad_field("file", "model_too_large", message, 413)


def listed(model_id: str) -> list[tuple[str, int]]:
    """The names and sizes of the files that were uploaded."""
    paths = sorted(path for path in storage.base_model(model_id).glob("*") if not path.name.startswith("."))
    return [(path.name, path.stat().st_size) for path in paths if path.is_file()]
