"""The JSON route that changes several jobs at once."""

from fastapi import APIRouter

from app.jobs.lists.bulk import ROWS
from app.web import bulk_requests
from app.web.auth import Submitter
from app.web.bulk_requests import JobsRequest, RowsAnswer
from app.web.idempotency import ApiRoute
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["jobs"])


@router.post("/jobs/bulk", responses=errors("tag_missing"))
def change_jobs(principal: Submitter, body: JobsRequest) -> RowsAnswer:
    """Cancel several jobs, move them to the trash, or tag them. Each is changed by itself; the answer says what became
    of it.
    """
    return bulk_requests.change_rows(principal, ROWS, body, body.tag)
