"""Streams an uploaded tokenizer to disk and queues its import."""

from collections.abc import AsyncIterator

from anyio import to_thread

from app.base_models import names
from app.core import db, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.formatting import file_size
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.models import Tokenizer
from app.core.names import check_text, checked_name
from app.core.principal import Principal
from app.tokenizers import service
from app.web import uploads

MAX_BYTES = 256 << 20
ENDINGS = (".json", ".model", *names.ARCHIVES)


async def receive(
    principal: Principal, filename: str, name: str, end: str, declared: str | None, stream: AsyncIterator[bytes]
) -> Tokenizer:
    """Store a file and queue its import. `declared` is the Content-Length header, `end` the end-of-text token, if its
    user names it.

    A failed upload leaves no file. Raises PanelError.
    """
    stored_name = _stored_name(filename)
    name = checked_name(name.strip() or filename, max_length=service.MAX_NAME_LENGTH)
    check_text("end", end)
    await to_thread.run_sync(uploads.check_declared, declared, MAX_BYTES, _too_large())
    tokenizer_id = new_id()
    path = storage.tokenizer(tokenizer_id) / stored_name
    upload = await to_thread.run_sync(uploads.StreamedUpload, path, MAX_BYTES, _too_large())
    try:
        await uploads.save_upload(stream, upload)
        return await to_thread.run_sync(_record, principal, tokenizer_id, name, filename, end)
    except BaseException:
        await to_thread.run_sync(service.remove_files, tokenizer_id)
        raise


def _record(principal: Principal, tokenizer_id: str, name: str, filename: str, end: str) -> Tokenizer:
    with db.transaction() as session:
        tokenizer = service.create_import(
            session, principal=principal, tokenizer_id=tokenizer_id, name=name, filename=filename, end=end
        )
    queue.flush_outbox()
    return tokenizer


def _stored_name(filename: str) -> str:
    """The name of an uploaded file in the tokenizer's directory. Raises PanelError for a file that is not accepted."""
    lower = filename.lower()
    if names.is_archive(lower):
        return names.stored_name(lower)
    if lower.endswith((".json", ".model")):
        return names.TOKENIZER if lower.endswith(".json") else "tokenizer.model"
    message = _(
        "“{name}” is not a tokenizer. Accepted: tokenizer.json, a SentencePiece model (.model), or a .zip or .tar "
        "archive of tokenizer files.",
        name=filename[:200],
    )
    raise bad_field("file", "file_unknown", message)


def _too_large() -> PanelError:
    message = _("The file of a tokenizer can have at most {limit}.", limit=file_size(MAX_BYTES))
    return bad_field("file", "file_too_large", message, 413)
