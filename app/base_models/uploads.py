"""Takes the files of a base model one by one as they stream in, under one limit for all of them."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from anyio import to_thread

from app.base_models import names, service
from app.core import db, storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import file_size
from app.core.i18n import _
from app.core.models import ImportedModel, new_id
from app.core.principal import Principal
from app.core.settings import settings
from app.web import uploads


async def receive(
    principal: Principal, model_id: str, name: str, declared: str | None, stream: AsyncIterator[bytes]
) -> ImportedModel:
    """Take one file; the same name again replaces it. What breaks off or is refused leaves no file."""
    stored = names.stored(name)
    await to_thread.run_sync(_open, principal, model_id)
    most = settings().max_model_bytes - await to_thread.run_sync(_held_bytes, model_id, stored)
    too_large = _too_large()
    await to_thread.run_sync(uploads.check_declared, declared, most, too_large)
    incoming = storage.base_model(model_id) / f".{new_id()}"
    sink = await to_thread.run_sync(uploads.StreamedUpload, incoming, most, too_large)
    try:
        await uploads.save_upload(stream, sink)
        return await to_thread.run_sync(_keep, principal, model_id, incoming, stored)
    finally:
        await to_thread.run_sync(partial(incoming.unlink, missing_ok=True))


def _keep(principal: Principal, model_id: str, incoming: Path, stored: str) -> ImportedModel:
    """Put a whole file in its place, unless the import has begun meanwhile: what was checked must not change."""
    with db.transaction() as session:
        model = service.receive(session, principal=principal, model_id=model_id)
        incoming.rename(incoming.with_name(stored))
    return model


def _open(principal: Principal, model_id: str) -> ImportedModel:
    with db.transaction() as session:
        return service.receive(session, principal=principal, model_id=model_id)


def _held_bytes(model_id: str, but: str) -> int:
    files = storage.base_model(model_id).glob("*")
    return sum(path.stat().st_size for path in files if path.is_file() and path.name != but)


def _too_large() -> PanelError:
    limit = file_size(settings().max_model_bytes)
    message = _("The files of a base model can have at most {limit} in total.", limit=limit)
    return bad_field("file", "model_too_large", message, 413)


def listed(model_id: str) -> list[tuple[str, int]]:
    """The files that have come: name and size."""
    paths = sorted(path for path in storage.base_model(model_id).glob("*") if not path.name.startswith("."))
    return [(path.name, path.stat().st_size) for path in paths if path.is_file()]
