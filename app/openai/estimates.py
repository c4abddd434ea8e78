"""What a fine-tuning job would cost, without creating it: `dry_run` of a job, and Together's address for prices."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.core import db
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.principal import Principal
from app.jobs import service, submissions
from app.jobs.planning import answers
from app.jobs.service import ResolvedRequest
from app.openai import job_objects, job_requests
from app.openai.job_requests import Hyperparameters, JobRequest, Method, MethodSettings, StartModel, Text
from app.web.auth import Submitter
from app.web.json_body import StrictRoute

router = APIRouter(route_class=StrictRoute)


def resolved(session: Session, *, principal: Principal, body: JobRequest) -> ResolvedRequest:
    """The job that a request would become. Raises PanelError, also while a file is still being read."""
    with job_requests.wire_errors(body):
        request = job_requests.spec_of(session, principal=principal, request=body)
        return submissions.plan(session, principal=principal, request=request)


def dry_run(session: Session, *, principal: Principal, body: JobRequest) -> dict[str, Any]:
    """The answer to the creation of a job that is not created: `athanor.plan` says what it would take."""
    job = resolved(session, principal=principal, body=body)
    plan = answers.plan_answer(job.spec, job.vocab_size, job.plan, job.auto_fields)
    return job_objects.planned_answer(session, job_requests.details(body), job, plan.model_dump(mode="json"))


# ---- Together's address ---------------------------------------------------------------------------------------------


class TrainingMethod(BaseModel):
    """How Together's clients name what is learned. `sft` is supervised."""

    method: Literal["sft", "dpo"] = "sft"


class PriceRequest(BaseModel):
    """A job of Together's API, as far as it decides the price."""

    model: StartModel
    training_file: Text
    validation_file: Text | None = None
    n_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    training_method: TrainingMethod = TrainingMethod()

    def as_job(self) -> JobRequest:
        """The same job as a request of OpenAI's API."""
        settings = MethodSettings(hyperparameters=Hyperparameters(n_epochs=self.n_epochs))
        is_dpo = self.training_method.method == "dpo"
        method = Method(type="dpo", dpo=settings) if is_dpo else Method(type="supervised", supervised=settings)
        names = ("model", "training_file", "validation_file")
        return JobRequest(**{name: getattr(self, name) for name in names}, method=method)


@router.post("/fine-tunes/estimate-price")
def estimate_price(principal: Submitter, body: PriceRequest) -> dict[str, Any]:
    """What a job would cost on a live node. It may proceed if it fits there and in the user's quota."""
    try:
        with db.transaction() as session:
            job = resolved(session, principal=principal, body=body.as_job())
    except PanelError as error:
        if error.code != "corpus_parsing":
            raise
        return {"estimation_available": False, "unavailable_reason": error.message}
    if job.node is None:
        message = _("No node is running, so the price is not known. Start a worker.")
        return {"estimation_available": False, "unavailable_reason": message}
    cost = job.plan.figures.get("cost")  # None where neither the machine nor its energy has a price
    return {
        "estimation_available": True,
        "estimated_total_price": 0.0 if cost is None else cost.value,
        "estimated_train_token_count": job.plan.num_tokens,
        "allowed_to_proceed": job.plan.fits is not False and _is_within_quota(principal),
    }


def _is_within_quota(principal: Principal) -> bool:
    try:
        with db.transaction() as session:
            service.check_quota(session, principal)
    except PanelError:
        return False
    return True
