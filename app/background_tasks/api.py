"""JSON routes of background tasks, the start of exports and evaluations, and the download of what an export wrote."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from app.background_tasks import schemas, service
from app.background_tasks.schemas import EvaluationRequest, ExportRequest, TaskAnswer
from app.core import db, storage
from app.core.background_tasks import Kind
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import TASK_KINDS
from app.core.paging import Listing
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import FileName, Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["tasks"])
tasks_router = APIRouter(route_class=ApiRoute)


@router.post(
    "/exports",
    status_code=201,
    responses=errors(
        "checkpoint_unknown",
        "checkpoint_corrupt",
        "format_unfit",
        "character_invalid",
        "name_too_long",
        "adapter_missing",
        "gguf_family",
        "gguf_setting",
        "gguf_positions",
        "gguf_tokenizer",
        "model_unready",
        "tasks_open",
        "disk_full",
    ),
)
def export_checkpoint(principal: Submitter, body: ExportRequest) -> TaskAnswer:
    """Export a checkpoint or a base model. It succeeds if a fresh process reproduces its logits from the files."""
    return service.start(service.export, principal, body, schemas.task_answer)


@router.post(
    "/evaluations",
    status_code=201,
    responses=errors(
        "checkpoint_unknown",
        "checkpoint_corrupt",
        "kind_unfit",
        "evaluation_unfit",
        "corpus_unknown",
        "corpus_parsing",
        "corpus_failed",
        "corpus_twice",
        "judge_missing",
        "examples_few",
        "model_unready",
        "tasks_open",
        "disk_full",
    ),
)
def evaluate_checkpoint(principal: Submitter, body: EvaluationRequest) -> TaskAnswer:
    """Evaluate a checkpoint or a base model on held-out corpora."""
    return service.start(service.evaluate, principal, body, schemas.task_answer)


@tasks_router.get("")
def list_tasks(
    principal: Reader,
    subject: Annotated[
        str | None, Query(max_length=64, description="Only those of this corpus, checkpoint or model.")
    ] = None,
    kind: Annotated[
        list[Kind] | None, Query(max_length=len(TASK_KINDS), description="Only those of these kinds.")
    ] = None,
    checkpoint: Annotated[
        str | None, Query(max_length=64, description="The name of `subject` in earlier versions.", deprecated=True)
    ] = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[TaskAnswer]:
    """List background tasks, newest first."""
    with db.transaction() as session:
        rows, cursor = service.list_tasks(
            session,
            principal=principal,
            subject_id=subject or checkpoint,
            kinds=kind or (),
            limit=limit,
            after=after,
        )
        return Listing(data=[schemas.task_answer(row) for row in rows], next=cursor)


@tasks_router.get("/{task_id}")
def get_task(principal: Reader, task_id: Id) -> TaskAnswer:
    """Get a background task, with its result."""
    with db.transaction() as session:
        return schemas.task_answer(service.get(session, principal=principal, task_id=task_id))


@tasks_router.post("/{task_id}/cancel", responses=errors("task_shipped"))
def cancel_task(principal: Submitter, task_id: Id) -> TaskAnswer:
    """Cancel a background task; its process ends within two seconds. No-op if it has ended."""
    with db.transaction() as session:
        return schemas.task_answer(service.cancel(session, principal=principal, task_id=task_id))


@tasks_router.delete("/{task_id}", status_code=204, responses=errors("task_open", "task_shipped"))
def delete_task(principal: Submitter, task_id: Id) -> Response:
    """Delete a background task that has ended from the history, and the files of an export."""
    with db.transaction() as session:
        service.delete(session, principal=principal, task_id=task_id)
    service.remove_files(task_id)
    return Response(status_code=204)


@tasks_router.get("/{task_id}/files/{name}", response_class=FileResponse, responses=errors("file_unknown"))
def download_file(principal: Reader, task_id: Id, name: FileName) -> FileResponse:
    """Download one file of an export, whole or in ranges."""
    with db.transaction() as session:
        task = service.get(session, principal=principal, task_id=task_id)
    path = storage.exported_files(task_id) / name
    if name not in [file.name for file in (task.result.files if task.result else [])] or not path.is_file():
        raise PanelError(404, "file_unknown", _("This export has no file {name}.", name=name))
    return FileResponse(path, media_type="application/octet-stream", filename=name)


router.include_router(tasks_router, prefix="/tasks")
for _former_path in ("/checkpoint-tasks", "/works"):  # of earlier versions
    router.include_router(tasks_router, prefix=_former_path, deprecated=True)
