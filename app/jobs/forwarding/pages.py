"""The switches of a job's page by which it is forwarded to trackers."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse

from app.core import db
from app.jobs.forwarding import service
from app.jobs.lifecycle.notifications import notify_job_changed
from app.web.auth import Submitter
from app.web.parameters import Id

router = APIRouter()


@router.post("/jobs/{job_id}/forwardings")
def change_forwarding(
    principal: Submitter,
    job_id: Id,
    tracker: Annotated[str, Form(max_length=40)] = "",
    is_enabled: Annotated[bool, Form()] = False,
) -> Response:
    """Forward a job to a tracker, or forward no more of it, and go to its page."""
    with db.transaction() as session:
        service.choose(session, principal=principal, job_id=job_id, choices={tracker: is_enabled})
    notify_job_changed(job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)
