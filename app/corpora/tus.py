"""The tus protocol 1.0 (https://tus.io/protocols/resumable-upload): its requests, headers and statuses.

Extensions: creation, creation-with-upload, termination, checksum and expiration.
"""

import base64
import binascii
from collections.abc import Callable, Coroutine
from datetime import UTC
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.openai_models import Upload
from app.core.paging import Listing
from app.core.settings import settings
from app.corpora import resumable_uploads, schemas, uploads
from app.corpora.schemas import UploadAnswer
from app.web.auth import Reader, Submitter
from app.web.errors import allowed_methods
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors
from app.web.resumable_file import ALGORITHMS, Checksum, parse_checksum

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum,expiration"
CONTENT_TYPE = "application/offset+octet-stream"
MAX_METADATA_LENGTH = 8_000  # characters of the header

Offset = Annotated[int, Header(ge=0, le=2**62, description="Position in the file at which the body begins.")]
Body = {"content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


class TusRoute(ApiRoute):
    """A route of tus: its requests name the version of the protocol, and so do all its answers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, between both headers."""
        handle = super().get_route_handler()
        method = min(self.methods or ("GET",))

        async def handle_version(request: Request) -> Response:
            try:
                if method != "OPTIONS":
                    _check_version(request, is_needed=method != "GET")
                response = await handle(request)
            except (PanelError, HTTPException) as error:
                error.headers = {**(error.headers or {}), "Tus-Resumable": VERSION}
                raise
            response.headers["Tus-Resumable"] = VERSION
            return response

        return handle_version


def _check_version(request: Request, is_needed: bool) -> None:
    version = request.headers.get("tus-resumable")
    if version != VERSION and (version is not None or is_needed):
        message = _("Send the header Tus-Resumable: {version}.", version=VERSION)
        raise PanelError(412, "tus_version", message, headers={"Tus-Version": VERSION})


router = APIRouter(route_class=TusRoute, prefix="/uploads", tags=["uploads"])


@router.options("", include_in_schema=False)
@router.options("/{upload_id}", include_in_schema=False)
def describe_tus(request: Request) -> Response:
    """What this server supports of the protocol."""
    supported = {
        "Allow": ", ".join(allowed_methods(request)),
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(settings().max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return Response(status_code=204, headers=supported)


@router.post(
    "",
    status_code=201,
    openapi_extra={"requestBody": Body},
    responses=errors(
        *("tus_version", "filename_extension", "name_missing", "name_too_long", "character_invalid", "file_empty"),
        *("file_too_large", "disk_full", "uploads_open", "metadata_invalid", "upload_broken", "upload_overrun"),
        *("checksum_invalid", "checksum_differs"),
    ),
)
async def create_upload(
    request: Request,
    principal: Submitter,
    upload_length: Annotated[int, Header(ge=0, le=2**62, description="Size of the file in bytes.")],
    upload_metadata: Annotated[
        str,
        Header(
            description="Pairs of a key and a value in Base64, with commas between them: `filename`, or `relativePath` "
            "for a file of a folder.",
            max_length=MAX_METADATA_LENGTH,
        ),
    ] = "",
    upload_checksum: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Begin to upload a file by the tus protocol. The header Location of the answer is where its bytes are sent.

    A body is the beginning of the file. When all of it has arrived, make a corpus of it and others.
    """
    metadata = _metadata(upload_metadata)
    filename = uploads.checked_filename(metadata.get("relativePath") or metadata.get("filename") or "")
    checksum = parse_checksum(upload_checksum) if upload_checksum else None
    upload = await run_in_threadpool(
        resumable_uploads.begin,
        principal,
        filename=filename,
        num_bytes=upload_length,
        tus_metadata=upload_metadata,
    )
    headers = {"Location": f"/api/v1/uploads/{upload.id}"}
    if request.headers.get("content-type") != CONTENT_TYPE:
        return Response(status_code=201, headers={**headers, **_expires(upload)})
    try:
        upload, offset = await resumable_uploads.append(principal, upload.id, 0, request.stream(), checksum)
    except BaseException as error:  # the client does not know its address, so it cannot go on
        await resumable_uploads.cancel(principal, upload.id)
        raise _broken() if isinstance(error, ClientDisconnect) else error from None
    return Response(status_code=201, headers={**headers, **_expires(upload), "Upload-Offset": str(offset)})


def _broken() -> PanelError:
    return PanelError(400, "upload_broken", _("The upload was interrupted; nothing was saved. Send it again."))


def _metadata(header: str) -> dict[str, str]:
    """The values by key. Raises PanelError."""
    values: dict[str, str] = {}
    for pair in filter(None, map(str.strip, header.split(","))):
        key, _space, value = pair.partition(" ")
        try:
            values[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            message = _("The value of “{key}” in Upload-Metadata is not UTF-8 in Base64.", key=key[:80])
            raise bad_field("Upload-Metadata", "metadata_invalid", message) from None
    return values


def _expires(upload: Upload) -> dict[str, str]:
    """The header for one that no corpus has been made of."""
    if upload.state != "pending":
        return {}
    return {"Upload-Expires": format_datetime(upload.expires_at.astimezone(UTC), usegmt=True)}


@router.get("")
def list_uploads(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[UploadAnswer]:
    """List the uploads that no corpus has been made of yet, newest first."""
    with db.transaction() as session:
        rows, cursor = resumable_uploads.list_open(session, principal=principal, limit=limit, after=after)
    return Listing(data=[schemas.upload_answer(row) for row in rows], next=cursor)


@router.get("/{upload_id}", response_model=UploadAnswer, responses=errors("upload_expired", "upload_locked"))
async def get_upload(request: Request, principal: Reader, upload_id: Id, response: Response) -> UploadAnswer:
    """Get an upload. With HEAD and the header Tus-Resumable, Upload-Offset is where to go on.

    That ends another request for this upload, which the client has given up; without the header it goes on.
    """
    if "tus-resumable" in request.headers:
        upload, offset = await resumable_uploads.offset(principal, upload_id)
    else:
        upload = await run_in_threadpool(resumable_uploads.read, principal, upload_id)
        offset = upload.num_received
    response.headers["Cache-Control"] = "no-store"
    response.headers["Upload-Offset"] = str(offset)
    response.headers["Upload-Length"] = str(upload.num_bytes)
    if upload.tus_metadata:
        response.headers["Upload-Metadata"] = upload.tus_metadata
    response.headers.update(_expires(upload))
    return schemas.upload_answer(upload)


APPEND_ERRORS = (
    *("tus_version", "upload_expired", "upload_locked", "upload_offset", "upload_taken_over", "upload_overrun"),
    *("checksum_invalid", "checksum_differs", "disk_full", "media_type"),
)


@router.patch("/{upload_id}", status_code=204, openapi_extra={"requestBody": Body}, responses=errors(*APPEND_ERRORS))
async def append_to_upload(
    request: Request,
    principal: Submitter,
    upload_id: Id,
    upload_offset: Offset,
    upload_checksum: Annotated[
        str, Header(description="sha256, sha1 or md5, a space, and the checksum in Base64.", max_length=200)
    ] = "",
) -> Response:
    """Send the next bytes of an upload. What has arrived is kept if the connection breaks."""
    if request.headers.get("content-type") != CONTENT_TYPE:
        raise PanelError(415, "media_type", _("Send the header Content-Type: {type}.", type=CONTENT_TYPE))
    checksum: Checksum | None = parse_checksum(upload_checksum) if upload_checksum else None
    upload, offset = await resumable_uploads.append(principal, upload_id, upload_offset, request.stream(), checksum)
    return Response(status_code=204, headers={"Upload-Offset": str(offset), **_expires(upload)})


@router.delete("/{upload_id}", status_code=204, responses=errors("tus_version", "upload_closed", "upload_expired"))
async def delete_upload(principal: Submitter, upload_id: Id) -> Response:
    """Delete an upload and what has arrived of it."""
    await resumable_uploads.cancel(principal, upload_id)
    return Response(status_code=204)


@router.post("/{upload_id}", include_in_schema=False)
async def override_method(
    request: Request,
    principal: Submitter,
    upload_id: Id,
    x_http_method_override: Annotated[str, Header()],
    upload_offset: Offset = 0,
    upload_checksum: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """PATCH or DELETE of a client that can only send POST, as the protocol demands."""
    if x_http_method_override == "PATCH":
        return await append_to_upload(request, principal, upload_id, upload_offset, upload_checksum)
    if x_http_method_override == "DELETE":
        return await delete_upload(principal, upload_id)
    raise HTTPException(405, headers={"Allow": "PATCH, DELETE"})
