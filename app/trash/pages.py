"""HTML routes of the trash."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.core import db, disk, trash
from app.trash import service
from app.web.auth import Reader, Submitter
from app.web.bulk import chosen
from app.web.forms import FormBody
from app.web.pages import page
from app.web.paging import After

router = APIRouter()
PAGE_ROWS = 50
LISTS = {
    "corpus": "/corpora",
    "model": "/models",
    "tokenizer": "/tokenizers",
    "checkpoint": "/checkpoints",
    "job": "/jobs",
}


@router.get("/trash")
def show_trash(request: Request, principal: Reader, after: After = None) -> Response:
    """What the user has deleted, with the buttons to restore it or to delete it for good."""
    with db.transaction() as session:
        rows, following = service.list_trash(session, principal=principal, limit=PAGE_ROWS, after=after)
        count, num_bytes = service.total(session, principal=principal)
    return page(
        request,
        "trash/index.html",
        principal=principal,
        rows=rows,
        next=following,
        after=after,
        count=count,
        num_bytes=num_bytes,
        addresses=LISTS,
        num_days=trash.LIFETIME.days,
        is_disk_low=disk.is_low(),
    )


@router.post("/trash/restore")
def restore(principal: Submitter, form: FormBody) -> Response:
    """Restore what was chosen, and redirect to its page, or to the list of the first one if there are several."""
    ids = chosen(form, "row")
    kinds = service.change_each(service.restore, principal, ids)
    if not kinds:
        return RedirectResponse("/trash", status_code=303)
    address = LISTS[kinds[0]]
    return RedirectResponse(f"{address}/{ids[0]}" if len(ids) == 1 else address, status_code=303)


@router.post("/trash/delete")
def delete(principal: Submitter, form: FormBody) -> Response:
    """Delete what was chosen for good."""
    service.change_each(service.purge, principal, chosen(form, "row"))
    return RedirectResponse("/trash", status_code=303)


@router.post("/trash/empty")
def empty(principal: Submitter) -> Response:
    """Delete everything in the trash for good."""
    service.empty(principal)
    return RedirectResponse("/trash", status_code=303)
