"""JSON routes of checkpoints, and their download."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from app.checkpoints import service
from app.checkpoints.bulk import ROWS
from app.checkpoints.schemas import CheckpointAnswer, CheckpointDetail, checkpoint_answers, checkpoint_detail
from app.core import db
from app.core.labels import LabelChanges
from app.core.paging import Listing
from app.core.principal import OwnerFilter, Principal
from app.web import bulk_requests
from app.web.auth import Reader, Submitter
from app.web.bulk_requests import CheckpointsRequest, RowsAnswer
from app.web.idempotency import ApiRoute
from app.web.labels import LABEL_ERRORS
from app.web.paging import After, Limit, Search
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["checkpoints"])


@router.get("/checkpoints")
def list_checkpoints(
    principal: Reader,
    job: Annotated[str | None, Query(max_length=64, description="Only checkpoints of this job.")] = None,
    q: Search = "",
    tag: Annotated[str, Query(max_length=64, description="Only with this tag.")] = "",
    pinned: Annotated[bool | None, Query(description="Only pinned ones, or only others.")] = None,
    owner: Annotated[
        OwnerFilter | None, Query(description="Only your own, or only what others share with you.")
    ] = None,
    order: Annotated[
        service.CheckpointOrder,
        Query(description="size: the largest first; eval_loss: the lowest validation loss first."),
    ] = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Listing[CheckpointAnswer]:
    """List checkpoints, newest first unless `order` says otherwise; by name means by that of their job.

    `q` is looked for in their names, notes and tags and in the names of their jobs.
    """
    with db.transaction() as session:
        rows, cursor = service.list_checkpoints(
            session,
            principal=principal,
            job_id=job,
            limit=limit,
            after=after,
            search=q,
            tag=tag,
            pinned=pinned,
            owner=owner,
            order=order,
        )
        return Listing(data=checkpoint_answers(session, rows), next=cursor)


@router.get("/checkpoints/{checkpoint_id}", responses=errors("checkpoint_deleted"))
def get_checkpoint(principal: Reader, checkpoint_id: Id) -> CheckpointDetail:
    """Get a checkpoint with its manifest."""
    with db.transaction() as session:
        row = service.get(session, principal=principal, checkpoint_id=checkpoint_id)
        return checkpoint_detail(session, row)


@router.patch("/checkpoints/{checkpoint_id}", responses=errors("checkpoint_deleted", *LABEL_ERRORS))
def change_checkpoint(principal: Submitter, checkpoint_id: Id, body: LabelChanges) -> CheckpointAnswer:
    """Name, tag or describe a checkpoint; fields that are left out stay, and an empty name takes its name away."""
    with db.transaction() as session:
        row = service.change_labels(session, principal=principal, checkpoint_id=checkpoint_id, changes=body)
        return checkpoint_answers(session, [row])[0]


@router.delete(
    "/checkpoints/{checkpoint_id}", status_code=204, responses=errors("checkpoint_deleted", "checkpoint_in_use")
)
def delete_checkpoint(principal: Submitter, checkpoint_id: Id) -> Response:
    """Move a checkpoint to the trash, pinned or not.

    Refused while a job, a deployment or a task of another user uses it. Your exports and
    evaluations of it that have not finished are cancelled; the others stay.
    """
    with db.transaction() as session:
        service.delete(session, principal=principal, checkpoint_id=checkpoint_id)
    return Response(status_code=204)


@router.post("/checkpoints/{checkpoint_id}/pin", responses=errors("checkpoint_deleted"))
def pin_checkpoint(principal: Submitter, checkpoint_id: Id) -> CheckpointAnswer:
    """Pin a checkpoint, so that its job never deletes it."""
    return _pin(principal, checkpoint_id, pinned=True)


@router.post("/checkpoints/{checkpoint_id}/unpin", responses=errors("checkpoint_deleted"))
def unpin_checkpoint(principal: Submitter, checkpoint_id: Id) -> CheckpointAnswer:
    """Unpin a checkpoint. Without another reason to be kept, it is deleted at its job's next save."""
    return _pin(principal, checkpoint_id, pinned=False)


def _pin(principal: Principal, checkpoint_id: str, *, pinned: bool) -> CheckpointAnswer:
    with db.transaction() as session:
        row = service.pin(session, principal=principal, checkpoint_id=checkpoint_id, pinned=pinned)
        return checkpoint_answers(session, [row])[0]


@router.get(
    "/checkpoints/{checkpoint_id}/download",
    response_class=StreamingResponse,
    responses=errors("checkpoint_deleted", "checkpoint_missing"),
)
def download_checkpoint(principal: Reader, checkpoint_id: Id) -> StreamingResponse:
    """Download a checkpoint as a zip archive that `transformers` opens once it is unpacked."""
    with db.transaction() as session:
        checkpoint = service.get(session, principal=principal, checkpoint_id=checkpoint_id)
        name = service.archive_name(session, checkpoint=checkpoint)
    service.files(checkpoint)  # answers 409 now: once the stream has begun it could only break off
    disposition = f"attachment; filename=\"checkpoint.zip\"; filename*=UTF-8''{quote(name)}"
    if name.isascii():
        disposition = f'attachment; filename="{name}"'
    headers = {"Content-Disposition": disposition}
    return StreamingResponse(service.zip_chunks(checkpoint), media_type="application/zip", headers=headers)


@router.post("/checkpoints/bulk")
def change_checkpoints(principal: Submitter, body: CheckpointsRequest) -> RowsAnswer:
    """Pin, unpin or tag several checkpoints, or move them to the trash. Each is changed by itself; the answer says
    what became of it.
    """
    return bulk_requests.change_rows(principal, ROWS, body, body.tag)
