"""HTML routes of the trash."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from app.core import db, disk, trash
from app.core.i18n import _
from app.core.principal import Principal
from app.trash import bulk, service
from app.trash.schemas import TrashKind
from app.web.auth import Reader, Submitter
from app.web.bulk import BulkOutcome, chosen
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
    return _page(request, principal, after=after)


def _page(
    request: Request, principal: Principal, outcome: BulkOutcome | None = None, after: str | None = None
) -> Response:
    with db.transaction() as session:
        rows, cursor = service.list_trash(session, principal=principal, limit=PAGE_ROWS, after=after)
        count, num_bytes = service.total(session, principal=principal)
    return page(
        request,
        "trash/index.html",
        principal=principal,
        rows=rows,
        next=cursor,
        after=after,
        count=count,
        num_bytes=num_bytes,
        addresses=LISTS,
        num_days=trash.LIFETIME.days,
        is_disk_low=disk.is_low(),
        outcome=outcome,
        status=409 if outcome is not None and outcome.is_refused else 200,
    )


@router.post("/trash/restore")
def restore(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Restore what was chosen, and redirect to its page, or to the list of the first one if there are several."""
    ids = _chosen(principal, form)
    kinds: list[TrashKind] = []

    def verb(session: Session, row_id: str) -> None:
        kinds.append(service.restore(session, principal=principal, row_id=row_id))

    outcome = _nothing("restore") if ids is None else bulk.change(principal, "restore", ids, verb)
    if outcome.refused:
        return _page(request, principal, outcome)
    if not ids or not kinds:
        return RedirectResponse("/trash", status_code=303)
    address = LISTS[kinds[0]]
    return RedirectResponse(f"{address}/{ids[0]}" if len(ids) == 1 else address, status_code=303)


@router.post("/trash/delete")
def delete(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Delete what was chosen for good, once that is confirmed. What a job, a task or a deployment uses stays, and the
    page says so.
    """
    ids = _chosen(principal, form)
    if ids and "confirmed" not in form:
        with db.transaction() as session:
            rows = [(row_id, service.name(session, principal=principal, row_id=row_id)) for row_id in ids]
        return page(request, "trash/confirm.html", principal=principal, rows=rows)
    return _purged(request, principal, _nothing("purge") if ids is None else bulk.purge(principal, ids))


@router.post("/trash/empty")
def empty(request: Request, principal: Submitter) -> Response:
    """Delete everything in the trash for good. What a job, a task or a deployment uses stays, and the page says so."""
    return _purged(request, principal, bulk.empty(principal))


def _chosen(principal: Principal, form: FormData) -> list[str] | None:
    """The IDs of what was chosen and is still in the trash; None if nothing was chosen."""
    ids = chosen(form, "row")
    if not ids:
        return None
    with db.transaction() as session:
        return trash.of_user(session, principal, ids)


def _nothing(action: str) -> BulkOutcome:
    return BulkOutcome(action, problem=_("Choose at least one entry of the list."))


def _purged(request: Request, principal: Principal, outcome: BulkOutcome) -> Response:
    return _page(request, principal, outcome) if outcome.refused else RedirectResponse("/trash", status_code=303)
