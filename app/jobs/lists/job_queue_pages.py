"""The page of the queue, with the moves of its jobs."""

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from app.core import db
from app.core.errors import PanelError
from app.core.principal import Principal
from app.jobs.lifecycle.notifications import notify_job_changed
from app.jobs.lists import job_queue, queue_moves
from app.jobs.lists.job_queue import QueuedJobAnswer
from app.web.auth import Reader, Submitter
from app.web.bulk import text_fields
from app.web.forms import FormBody
from app.web.pages import handle_form_action, page
from app.web.parameters import Id

router = APIRouter()


@router.get("/jobs/queue")
def show_queue(request: Request, principal: Reader) -> Response:
    """The jobs that wait for a place, the next one first."""
    return _queue_page(request, principal)


def _queue_page(request: Request, principal: Principal, error: PanelError | None = None) -> Response:
    with db.transaction() as session:
        jobs = job_queue.list_queue(session, principal=principal)
    status = error.status if error else 200
    neighbors = _neighbors(jobs, principal)
    return page(request, "jobs/queue.html", status, principal=principal, jobs=jobs, neighbors=neighbors, problem=error)


def _neighbors(jobs: Sequence[QueuedJobAnswer], principal: Principal) -> dict[str, tuple[str | None, str | None]]:
    """Of each job that the user may move, the one before which and the one after which its buttons move it."""
    ids = [job.id for job in jobs if job.id is not None and (job.is_own or principal.is_at_least("admin"))]
    return dict(zip(ids, zip([None, *ids[:-1]], [*ids[1:], None], strict=True), strict=True)) if ids else {}


@router.post("/jobs/{job_id}/move")
def move_on_the_page(request: Request, principal: Submitter, job_id: Id, form_data: FormBody) -> Response:
    """Move a job before or after another one, and show the queue again."""
    fields = text_fields(form_data)
    answer = handle_form_action(
        lambda session: queue_moves.move(
            session, principal=principal, job_id=job_id, before=fields.get("before"), after=fields.get("after")
        ),
        "/jobs/queue",
        lambda error: _queue_page(request, principal, error),
    )
    notify_job_changed(job_id)
    return answer
