"""JSON routes of exports and evaluations, and the download of what an export made."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from app.core import db, queue, storage
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import Work
from app.core.paging import Listing
from app.core.principal import Principal
from app.web.auth import Reader, Submitter
from app.web.paging import After, Limit
from app.works import schemas, service
from app.works.schemas import EvaluationRequest, ExportRequest, WorkAnswer

router = APIRouter(tags=["works"])


@router.post("/exports", status_code=201)
def export_checkpoint(principal: Submitter, body: ExportRequest) -> WorkAnswer:
    """Export a checkpoint. It is done when the artefact, opened in a fresh process, gives the checkpoint's logits."""
    with db.transaction() as session:
        work = service.export(session, principal=principal, asked=body)
    queue.flush_outbox()
    return _answer(principal, work)


@router.post("/evaluations", status_code=201)
def evaluate_checkpoint(principal: Submitter, body: EvaluationRequest) -> WorkAnswer:
    """Ask a checkpoint about held-out corpora."""
    with db.transaction() as session:
        work = service.evaluate(session, principal=principal, asked=body)
    queue.flush_outbox()
    return _answer(principal, work)


def _answer(principal: Principal, work: Work) -> WorkAnswer:
    with db.transaction() as session:
        return schemas.work_answer(service.get(session, principal=principal, work_id=work.id))


@router.get("/works")
def list_works(
    principal: Reader,
    checkpoint: Annotated[str | None, Query(max_length=64, description="Only those of this checkpoint.")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[WorkAnswer]:
    """List exports and evaluations, newest first."""
    with db.transaction() as session:
        rows, following = service.list_works(
            session, principal=principal, checkpoint_id=checkpoint, limit=limit, after=after
        )
        return Listing(data=[schemas.work_answer(row) for row in rows], next=following)


@router.get("/works/{work_id}")
def get_work(principal: Reader, work_id: str) -> WorkAnswer:
    """Get an export or an evaluation, with what came of it."""
    with db.transaction() as session:
        return schemas.work_answer(service.get(session, principal=principal, work_id=work_id))


@router.post("/works/{work_id}/cancel")
def cancel_work(principal: Submitter, work_id: str) -> WorkAnswer:
    """Cancel an export or an evaluation. What is over stays as it is."""
    with db.transaction() as session:
        return schemas.work_answer(service.cancel(session, principal=principal, work_id=work_id))


@router.delete("/works/{work_id}", status_code=204)
def delete_work(principal: Submitter, work_id: str) -> Response:
    """Delete an export or an evaluation that is over, and its files."""
    with db.transaction() as session:
        service.delete(session, principal=principal, work_id=work_id)
    service.remove_files(work_id)
    return Response(status_code=204)


@router.get("/works/{work_id}/files/{name}", response_class=FileResponse)
def download_file(principal: Reader, work_id: str, name: str) -> FileResponse:
    """Download one file of an export, whole or in ranges."""
    with db.transaction() as session:
        work = service.get(session, principal=principal, work_id=work_id)
    path = storage.work(work_id) / "artefact" / name
    if name not in [file.name for file in (work.result.files if work.result else [])] or not path.is_file():
        raise PanelError(404, "file_unknown", _("This export has no file {name}.", name=name))
    return FileResponse(path, media_type="application/octet-stream", filename=name)
