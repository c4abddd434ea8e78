"""JSON routes of a job's log: as text by byte offset, and its lines by text and level."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from app.core import db, storage
from app.core.models import TERMINAL
from app.core.paging import Listing
from app.core.principal import Principal
from app.jobs import schemas, service
from app.jobs.views import log_lines, logs
from app.jobs.views.log_lines import LeastLevel, LogLine
from app.web.auth import Reader
from app.web.idempotency import ApiRoute
from app.web.paging import Limit
from app.web.parameters import Id
from trainer.run_dir import RunDir

router = APIRouter(route_class=ApiRoute)


@router.get("/jobs/{job_id}/log", tags=["jobs"])
def get_log(
    principal: Reader,
    job_id: Id,
    offset: Annotated[int, Query(ge=0, le=2**62, description="Bytes of the log to skip.")] = 0,
) -> schemas.LogAnswer:
    """Get a chunk of the log: what the processes of a job printed."""
    path, is_complete = _log(principal, job_id)
    chunk = logs.read(path, offset, is_complete=is_complete)
    return schemas.LogAnswer(**vars(chunk), size=logs.size(path))


@router.get("/jobs/{job_id}/log/lines", tags=["jobs"])
def search_log(
    principal: Reader,
    job_id: Id,
    search: Annotated[str, Query(max_length=200, description="A part of the line, in upper or lower case.")] = "",
    level: Annotated[LeastLevel | None, Query(description="Only warnings and errors, or only errors.")] = None,
    around: Annotated[
        int | None, Query(ge=0, le=2**62, description="The `offset` of a line: those around it, without a search.")
    ] = None,
    limit: Limit = 50,
    after: Annotated[int, Query(ge=0, le=2**62, description="Value of `next` from the previous page.")] = 0,
) -> Listing[LogLine]:
    """Search the log of a job: its lines that contain a text or are warnings or errors, oldest first.

    A search reads some megabytes of the log at a time: a page may have few lines or none, and others follow.
    """
    path, is_complete = _log(principal, job_id)
    if around is not None:
        return log_lines.around(path, around, is_complete=is_complete)
    return log_lines.search(path, text=search, level=level, after=after, limit=limit, is_complete=is_complete)


def _log(principal: Principal, job_id: str) -> tuple[Path, bool]:
    """The log of a job, and whether nothing more will be written to it."""
    with db.transaction() as session:
        job = service.get(session, principal=principal, job_id=job_id)
        return RunDir(storage.run(job_id)).log_path, job.state in TERMINAL
