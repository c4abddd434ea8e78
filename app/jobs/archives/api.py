"""JSON routes that export and import a run."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from app.background_tasks import schemas
from app.background_tasks.schemas import TaskAnswer
from app.core import db
from app.jobs import service
from app.jobs.archives import export, imports, origin
from app.jobs.archives.export import Choice
from app.jobs.archives.origin import OriginAnswer
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.problem_types import errors
from app.web.uploads import RAW_BODY_SCHEMA

router = APIRouter(route_class=ApiRoute)


@router.get(
    "/jobs/{job_id}/archive",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}},
        **errors("job_open", "checkpoint_missing"),
    },
)
def download_archive(
    principal: Reader,
    job_id: Id,
    checkpoints: Annotated[Choice, Query(description="Which intact checkpoints it holds.")] = "best_and_last",
) -> StreamingResponse:
    """Download a job that has ended as one tar archive: spec, curves, samples, tokenizer and checkpoints.

    Of its corpora it has names and hashes, and the last file, MANIFEST.json, has the SHA-256 of every other one.
    """
    with db.transaction() as session:
        run = export.prepare(session, principal=principal, job_id=job_id, choice=checkpoints)
    headers = {"Content-Disposition": f'attachment; filename="{run.name}"'}
    return StreamingResponse(export.chunks(run), media_type="application/x-tar", headers=headers)


@router.post(
    "/jobs/import",
    status_code=202,
    tags=["jobs"],
    openapi_extra=RAW_BODY_SCHEMA,
    responses=errors(
        "archive_imported",
        "file_empty",
        "upload_broken",
        "character_invalid",
        "tasks_open",
        "quota_exceeded",
        "disk_full",
    ),
)
async def import_job(
    request: Request,
    principal: Submitter,
    filename: Annotated[str, Query(max_length=1000, description="Its name on pages.")] = "run.tar",
) -> TaskAnswer:
    """Import the archive of a job that this or another installation exported.

    It is checked in the background: poll the task. Once it has succeeded, its result has the ID of the job.
    """
    declared = request.headers.get("content-length")
    task = await imports.receive(principal, filename, declared, request.stream())
    return schemas.task_answer(task)


@router.get("/jobs/{job_id}/origin", tags=["jobs"], responses=errors("not_imported"))
def get_origin(principal: Reader, job_id: Id) -> OriginAnswer:
    """Get the archive that a job was imported from, with names and hashes of the corpora that it was trained on.

    Those whose text is here as well have the ID of that corpus.
    """
    with db.transaction() as session:
        job = service.get(session, principal=principal, job_id=job_id)
        return origin.answer(session, principal, job)
