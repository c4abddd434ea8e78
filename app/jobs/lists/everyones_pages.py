"""The page of everybody's jobs, for admins and owners."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.core import db
from app.core.models import TERMINAL
from app.jobs.lifecycle.notifications import notify_job_changed
from app.jobs.lists import everyones
from app.jobs.lists.everyones import Open, Search
from app.web.auth import EveryonesManager, EveryonesReader
from app.web.pages import page
from app.web.parameters import Id

router = APIRouter()
PAGE_LENGTH = 50


@router.get("/everyones-jobs")
def show_everyones_jobs(
    request: Request,
    principal: EveryonesReader,
    q: Search = "",
    is_open: Open = False,
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The page of everybody's jobs."""
    with db.transaction() as session:
        jobs, cursor = everyones.list_jobs(session, search=q, is_open=is_open, limit=PAGE_LENGTH, after=after)
    return page(
        request,
        "jobs/everyones.html",
        principal=principal,
        jobs=jobs,
        next=cursor,
        q=q,
        is_open=is_open,
        terminal=TERMINAL,
    )


@router.post("/everyones-jobs/{job_id}/cancel")
def cancel_on_the_page(principal: EveryonesManager, job_id: Id) -> Response:
    """Cancel a job of any user and show the list again."""
    with db.transaction() as session:
        everyones.cancel(session, principal=principal, job_id=job_id)
    notify_job_changed(job_id)
    return RedirectResponse("/everyones-jobs", status_code=303)
