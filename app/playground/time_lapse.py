"""The page that writes one prompt with every checkpoint of a job, one after the other, to see what it has learned."""

from fastapi import APIRouter, Request, Response

from app.core import db
from app.core.models import TERMINAL
from app.playground import service
from app.web.auth import Reader
from app.web.pages import page
from app.web.parameters import Id

router = APIRouter()


@router.get("/playground/time-lapse/{job_id}")
def show_time_lapse(request: Request, principal: Reader, job_id: Id) -> Response:
    """The checkpoints of a job, the first step first. Its script asks the API for the text of each, and asks this route
    again for those that a running job has saved meanwhile.
    """
    with db.transaction() as session:
        job, checkpoints = service.checkpoints_of_job(session, principal=principal, job_id=job_id)
    rows = [{"id": row.id, "step": row.step, "loss": row.metrics.get("eval_loss")} for row in checkpoints]
    is_over = job.state in TERMINAL
    return page(request, "playground/time_lapse.html", principal=principal, job=job, is_over=is_over, checkpoints=rows)
