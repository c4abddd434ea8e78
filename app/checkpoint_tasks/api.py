"""JSON routes of exports and evaluations, and the download of what an export made."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from app.checkpoint_tasks import schemas, service
from app.checkpoint_tasks.schemas import CheckpointTaskAnswer, EvaluationRequest, ExportRequest
from app.core import db, queue, storage
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import CheckpointTask
from app.core.paging import Listing
from app.core.principal import Principal
from app.web.auth import Reader, Submitter
from app.web.paging import After, Limit
from app.web.parameters import FileName, Id

router = APIRouter(tags=["checkpoint tasks"])
tasks_router = APIRouter()


@router.post("/exports", status_code=201)
def export_checkpoint(principal: Submitter, body: ExportRequest) -> CheckpointTaskAnswer:
    """Export a checkpoint or a base model. It succeeds if a fresh process reproduces its logits from the files."""
    with db.transaction() as session:
        task = service.export(session, principal=principal, request=body)
    queue.flush_outbox()
    return _answer(principal, task)


@router.post("/evaluations", status_code=201)
def evaluate_checkpoint(principal: Submitter, body: EvaluationRequest) -> CheckpointTaskAnswer:
    """Evaluate a checkpoint or a base model on held-out corpora."""
    with db.transaction() as session:
        task = service.evaluate(session, principal=principal, request=body)
    queue.flush_outbox()
    return _answer(principal, task)


def _answer(principal: Principal, task: CheckpointTask) -> CheckpointTaskAnswer:
    with db.transaction() as session:
        return schemas.task_answer(service.get(session, principal=principal, task_id=task.id))


@tasks_router.get("")
def list_tasks(
    principal: Reader,
    checkpoint: Annotated[
        str | None, Query(max_length=64, description="Only those of this checkpoint or model.")
    ] = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[CheckpointTaskAnswer]:
    """List exports and evaluations, newest first."""
    with db.transaction() as session:
        rows, following = service.list_tasks(
            session, principal=principal, subject_id=checkpoint, limit=limit, after=after
        )
        return Listing(data=[schemas.task_answer(row) for row in rows], next=following)


@tasks_router.get("/{task_id}")
def get_task(principal: Reader, task_id: Id) -> CheckpointTaskAnswer:
    """Get an export or an evaluation, with what came of it."""
    with db.transaction() as session:
        return schemas.task_answer(service.get(session, principal=principal, task_id=task_id))


@tasks_router.post("/{task_id}/cancel")
def cancel_task(principal: Submitter, task_id: Id) -> CheckpointTaskAnswer:
    """Cancel an export or an evaluation. No-op if it has ended."""
    with db.transaction() as session:
        return schemas.task_answer(service.cancel(session, principal=principal, task_id=task_id))


@tasks_router.delete("/{task_id}", status_code=204)
def delete_task(principal: Submitter, task_id: Id) -> Response:
    """Delete an export or an evaluation that has ended, and its files."""
    with db.transaction() as session:
        service.delete(session, principal=principal, task_id=task_id)
    service.remove_files(task_id)
    return Response(status_code=204)


@tasks_router.get("/{task_id}/files/{name}", response_class=FileResponse)
def download_file(principal: Reader, task_id: Id, name: FileName) -> FileResponse:
    """Download one file of an export, whole or in ranges."""
    with db.transaction() as session:
        task = service.get(session, principal=principal, task_id=task_id)
    path = storage.exported_files(task_id) / name
    if name not in [file.name for file in (task.result.files if task.result else [])] or not path.is_file():
        raise PanelError(404, "file_unknown", _("This export has no file {name}.", name=name))
    return FileResponse(path, media_type="application/octet-stream", filename=name)


router.include_router(tasks_router, prefix="/checkpoint-tasks")
router.include_router(tasks_router, prefix="/works", deprecated=True)  # the path of earlier versions
