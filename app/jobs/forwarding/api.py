"""JSON routes of forwarding to trackers."""

from fastapi import APIRouter

from app.core import db
from app.core.models import Job
from app.core.paging import Listing
from app.core.principal import visible
from app.jobs.forwarding import service
from app.jobs.forwarding.schemas import ForwardingAnswer, ForwardingRequest, forwarding_answer
from app.jobs.lifecycle.notifications import notify_job_changed
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["jobs"])


@router.get("/jobs/{job_id}/forwardings")
def list_forwardings(principal: Reader, job_id: Id) -> Listing[ForwardingAnswer]:
    """The experiment trackers that this installation forwards jobs to, each with how far a job is there."""
    with db.transaction() as session:
        visible(session, Job, job_id, principal=principal)
        return _listing(service.list_forwardings(session, job_id=job_id))


@router.patch("/jobs/{job_id}/forwardings", responses=errors("tracker_unavailable"))
def change_forwardings(principal: Submitter, job_id: Id, body: ForwardingRequest) -> Listing[ForwardingAnswer]:
    """Forward a job to trackers from now on, with everything so far, or forward no more of it.

    A tracker keeps what it has. A job that has ended can be forwarded, too.
    """
    with db.transaction() as session:
        service.choose(session, principal=principal, job_id=job_id, choices=body.trackers)
        answer = _listing(service.list_forwardings(session, job_id=job_id))
    notify_job_changed(job_id)
    return answer


def _listing(rows: list[service.Forwarding]) -> Listing[ForwardingAnswer]:
    return Listing(data=[forwarding_answer(*row) for row in rows], next=None)
