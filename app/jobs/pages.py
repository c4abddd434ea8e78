"""HTML routes of the page of a job."""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.core import db, sharing
from app.core.errors import PanelError
from app.core.i18n import locale, translate
from app.core.models import Job
from app.core.principal import Principal, is_visible
from app.corpora import service as corpora
from app.jobs import form_start, job_parts, service, stream
from app.jobs.archives import origin as archive_origin
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.lifecycle import notifications
from app.jobs.planning import accuracy
from app.jobs.planning import base_model as bases
from app.jobs.previews import batch
from app.jobs.views import baselines, chart_words, form
from app.web.auth import Reader, Submitter
from app.web.event_source import event_source
from app.web.json_body import StrictRoute
from app.web.pages import page
from app.web.parameters import Id
from app.web.preview_process import PREVIEWS
from app.web.revocation import end_unless
from trainer.families import ANSWER_OBJECTIVES, uses
from trainer.spec import MAX_STEPS

router = APIRouter(route_class=StrictRoute)


@router.get("/jobs/{job_id}")
def show_job(request: Request, principal: Reader, job_id: Id) -> Response:
    """The page of one job; its script follows the job's events from there."""
    with db.transaction() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        job = service.get(session, principal=principal, job_id=job_id)
        context = job_parts.context(session, job)
        parts = job_parts.render(context)
        samples = stream.samples(session, job_id=job_id)
        cursor = stream.page_cursor(session, job, parts.values())
        names = corpora.corpus_names(session, principal=principal, ids=job.spec.corpora)
        origin = None
        if job.resume_from_id:
            with suppress(PanelError):  # it is in the trash, or no longer shared
                origin = form_start.origin_of(session, principal, job.resume_from_id)
        shared = sharing.context(session, principal, job)
        base = bases.link(session, principal, job.spec.base_model)
        imported = archive_origin.find(session, principal, job)
        planned_memory = accuracy.planned_memory(job.facts)
        best_earlier = baselines.best_earlier(session, principal, job)
    return page(
        request,
        "jobs/show.html",
        principal=principal,
        **shared,
        job=context["job"],
        parts=parts,
        cursor=cursor.text(),
        samples=samples[::-1],
        has_taught_sample=job.spec.objective in ANSWER_OBJECTIVES and not job.spec.sample_prompt,
        origin=origin,
        base=base,
        imported=imported,
        corpora=[(corpus_id, names.get(corpus_id)) for corpus_id in job.spec.corpora],
        spec_rows=_spec_rows(context["job"].spec),
        words=chart_words.chart_words(),
        series=chart_words.series_words(),
        planned_memory=planned_memory,
        best_earlier=best_earlier,
    )


@router.get("/jobs/{job_id}/batches")
@PREVIEWS
def show_batch(
    request: Request,
    principal: Reader,
    job_id: Id,
    step: Annotated[int, Query(ge=1, le=MAX_STEPS)] = 1,
    first: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> Response:
    """The samples of a training step, token by token, with the documents that they are from."""
    with db.transaction() as session:
        job = service.get(session, principal=principal, job_id=job_id)
        batch.require_text(session, principal, job)
        spec = effective_spec(job)
    view, problem = None, None
    try:
        view = batch.view_batch(job_id, spec, step, first, batch.SAMPLES_SHOWN)
    except PanelError as error:
        problem = error
    with db.transaction() as session:
        names = corpora.corpus_names(session, principal=principal, ids=view.corpora) if view else {}
    return page(
        request,
        "jobs/batch.html",
        problem.status if problem else 200,
        principal=principal,
        job=job,
        spec=spec,
        view=view,
        problem=problem,
        corpus_names=names,
        step=step,
        first=first,
        num_shown=batch.SAMPLES_SHOWN,
    )


@router.get("/jobs/{job_id}/events")
def stream_job(
    request: Request,
    principal: Reader,
    job_id: Id,
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """What changes on the page of a job: its parts and samples as HTML, points of its curves, pieces of its log."""
    with db.transaction() as session:
        service.get(session, principal=principal, job_id=job_id)
    end_unless(request, is_visible, Job, job_id, principal)
    language = locale()
    read = stream.page_reader(job_id, language)
    topic = notifications.topic(job_id, language, "page")
    return event_source(request, topic, read, last_event_id or after or "", ping_events=True)


def _spec_rows(spec: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, title and value of each field of a spec that the job uses and that is not shown elsewhere."""
    properties = form.properties()
    return [
        (
            name,
            translate(properties[name]["title"]) if name in properties else name,
            form.to_cell(value),
        )
        for name, value in spec.items()
        if name not in ("name", "corpora", "evaluation_corpora") and uses(spec, name)
    ]


@router.post("/jobs/{job_id}/cancel")
def cancel(principal: Submitter, job_id: Id) -> Response:
    """Request cancellation and redirect to the job's page."""
    return _request_change(service.cancel, principal, job_id)


@router.post("/jobs/{job_id}/pause")
def pause(principal: Submitter, job_id: Id) -> Response:
    """Request a pause and redirect to the job's page."""
    return _request_change(service.pause, principal, job_id)


@router.post("/jobs/{job_id}/resume")
def resume(principal: Submitter, job_id: Id) -> Response:
    """Request that the job resume and redirect to its page."""
    return _request_change(service.resume, principal, job_id)


def _request_change(verb: Callable[..., Job], principal: Principal, job_id: str) -> Response:
    try:
        with db.transaction() as session:
            verb(session, principal=principal, job_id=job_id)
    except PanelError as error:
        if error.status != 409:  # it ended a moment ago: its page says how
            raise
    notifications.notify_job_changed(job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)
