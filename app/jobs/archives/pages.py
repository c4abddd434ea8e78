"""The page that imports an archive of a job."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.principal import Principal
from app.jobs.archives import imports
from app.web import multipart
from app.web.auth import Submitter
from app.web.pages import page

router = APIRouter()


def _form(request: Request, principal: Principal, error: PanelError | None = None) -> Response:
    status = error.status if error else 200
    message = error.message if error else ""
    return page(request, "jobs/import.html", status, principal=principal, error=message)


@router.get("/jobs/import")
def show_import(request: Request, principal: Submitter) -> Response:
    """The form to upload an archive."""
    return _form(request, principal)


@router.post("/jobs/import")
async def import_job(request: Request, principal: Submitter) -> Response:
    """Import an uploaded archive, and go to the page of its task."""
    try:
        async for part in multipart.parts(request, imports.MAX_BYTES):
            if part.filename:
                declared = request.headers.get("content-length")
                task = await imports.receive(principal, part.filename, declared, part.pieces)
                return RedirectResponse(f"/tasks/{task.id}", status_code=303)
        raise bad_field("file", "file_empty", _("Choose a file."))
    except PanelError as error:
        refused = error
    return await run_in_threadpool(_form, request, principal, refused)
