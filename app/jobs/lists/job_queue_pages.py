"""The page of the queue."""

from fastapi import APIRouter, Request, Response

from app.core import db
from app.jobs.lists import job_queue
from app.web.auth import Reader
from app.web.pages import page

router = APIRouter()


@router.get("/jobs/queue")
def show_queue(request: Request, principal: Reader) -> Response:
    """The jobs that wait for a place, the next one first."""
    with db.transaction() as session:
        jobs = job_queue.list_queue(session, principal=principal)
    return page(request, "jobs/queue.html", principal=principal, jobs=jobs)
