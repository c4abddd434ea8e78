"""JSON routes of the trash."""

from fastapi import APIRouter, Response

from app.core import db
from app.core.paging import Listing
from app.trash import bulk, service
from app.trash.schemas import TrashedAnswer
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

IN_USE = ("corpus_in_use", "model_in_use", "tokenizer_in_use", "checkpoint_in_use")
router = APIRouter(route_class=ApiRoute, tags=["trash"])


@router.get("/trash", responses=errors("cursor_invalid"))
def list_trash(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[TrashedAnswer]:
    """List what you have deleted in the last seven days, the last first.

    Checkpoints that were deleted with their job are not listed: they come back with it.
    """
    with db.transaction() as session:
        rows, cursor = service.list_trash(session, principal=principal, limit=limit, after=after)
    return Listing(data=rows, next=cursor)


@router.post("/trash/{trashed_id}/restore", status_code=204)
def restore_from_trash(principal: Submitter, trashed_id: Id) -> Response:
    """Take a corpus, base model, tokenizer, checkpoint or job out of the trash."""
    with db.transaction() as session:
        service.restore(session, principal=principal, row_id=trashed_id)
    return Response(status_code=204)


@router.delete("/trash/{trashed_id}", status_code=204, responses=errors(*IN_USE))
def delete_from_trash(principal: Submitter, trashed_id: Id) -> Response:
    """Delete something in the trash for good, with its files. A job or a deployment may still use it: 409."""
    with db.transaction() as session:
        service.purge(session, principal=principal, row_id=trashed_id)
    return Response(status_code=204)


@router.delete("/trash", status_code=204)
def empty_trash(principal: Submitter) -> Response:
    """Delete everything in your trash for good but what a job or a deployment uses."""
    bulk.empty(principal)
    return Response(status_code=204)
