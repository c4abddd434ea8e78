"""The JSON route that exports a run."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.core import db
from app.jobs.archives import export
from app.jobs.archives.export import Choice
from app.web.auth import Reader
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.problem_types import errors

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
