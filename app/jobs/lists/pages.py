"""HTML routes of many jobs: the list with its search, changes of several at once, and comparisons."""

from collections.abc import Mapping
from typing import Annotated, Any, cast, get_args

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.core import db, labels
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import STATES, TERMINAL, Job
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.jobs import schemas, service
from app.jobs.lifecycle import notifications
from app.jobs.lists import comparison
from app.jobs.lists.bulk import ROWS
from app.jobs.searches import importance
from app.jobs.searches import service as hyperparameter_search
from app.jobs.views import chart_words, parallel_coordinates
from app.web.auth import Reader, Submitter
from app.web.bulk import BulkOutcome, change_rows, text_fields
from app.web.forms import FormBody
from app.web.json_body import StrictRoute
from app.web.list_view import OWNERS, ListView
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import Id, Part, ShortText
from app.web.preview_process import PREVIEWS
from trainer.formats.corpus_kinds import EVALUATION_KINDS

router = APIRouter(route_class=StrictRoute)

PAGE_LENGTH = 25
MAX_AXES = 8  # of fields, in the plot of a comparison
RUN_FIELDS = {"id", "tokens_per_step", "flops_per_step", "series"}  # of a comparison, for its chart
FILTERS = {"all": None, "active": tuple(s for s in STATES if s not in TERMINAL), "ended": TERMINAL}


def _view(query: Mapping[str, str]) -> ListView:
    """Which jobs the list shows: of all, active or ended ones those that match a search and have a tag."""
    return ListView.of("/jobs", query, get_args(service.JobOrder), show=tuple(FILTERS), tag=(), owner=OWNERS)


@router.get("/jobs")
def list_jobs(request: Request, principal: Reader, after: After = None) -> Response:
    """The jobs that match a search, a page of them."""
    return _list(request, principal, _view(request.query_params), after)


def _list(
    request: Request,
    principal: Principal,
    selection: ListView,
    after: str | None = None,
    *,
    outcome: BulkOutcome | None = None,
) -> Response:
    with db.transaction() as session:
        jobs, more = service.list_jobs(
            session,
            principal=principal,
            limit=PAGE_LENGTH,
            after=after,
            states=FILTERS[selection["show"]],
            search=selection["q"],
            tag=selection["tag"] or None,
            owner=selection["owner"] or None,
            order=cast(service.JobOrder, selection["order"]),
        )
        rows = schemas.rows(session, jobs)
        tags = labels.list_tags(session, principal=principal, table=Job)
    return page(
        request,
        "jobs/list.html",
        422 if outcome and outcome.is_refused else 200,
        principal=principal,
        rows=rows,
        next=more,
        selection=selection,
        after=after,
        tags=selection.choices("tag", tags),
        outcome=outcome,
    )


@router.post("/jobs/bulk")
def change_many(request: Request, principal: Submitter, form_data: FormBody) -> Response:
    """Cancel, delete or tag the jobs that were chosen in the list, and show the list again with what became of them.
    What a deletion frees is to be confirmed.
    """
    view = _view(text_fields(form_data))
    outcome = change_rows(request, principal, ROWS, view, form_data, _("Delete the chosen jobs?"))
    if isinstance(outcome, Response):
        return outcome
    return _list(request, principal, view, outcome=outcome)


@router.get("/jobs/compare")
def compare(
    request: Request,
    principal: Reader,
    job: Annotated[list[ShortText], Query(max_length=100)] = [],  # noqa: B006 - FastAPI copies it
    search: Annotated[ShortText | None, Query(description="A hyperparameter search, whose jobs are compared.")] = None,
) -> Response:
    """The curves, settings, best values and samples of several jobs side by side."""
    compared, problem, answer, weights = None, None, None, None
    try:
        with db.transaction() as session:
            if search is not None:
                row = hyperparameter_search.get(session, principal=principal, search_id=search)
                (answer,) = hyperparameter_search.answers(session, [row])
                job = answer.jobs
                weights = importance.without_computing(importance.results(session, row))
            compared = comparison.compare(session, principal=principal, job_ids=job)
    except PanelError as error:
        problem = error
    if answer is not None and compared is not None:
        compared = compared.by_validation_loss().without_prefix(f"{answer.name}: ")
    return page(
        request,
        "jobs/compare.html",
        problem.status if problem else 200,
        principal=principal,
        compared=compared,
        search=answer,
        importance=weights,
        plot=_plot(compared) if compared else None,
        problem=problem,
        series=chart_words.series_words(),
        words=chart_words.comparison_words(compared.jobs if compared else []),
        runs=[run.model_dump(include=RUN_FIELDS) for run in compared.jobs] if compared else [],
        validation_series=list(comparison.IS_LOWER_BETTER),
    )


def _plot(compared: comparison.JobComparison) -> parallel_coordinates.ParallelCoordinates | None:
    """Which values gave which loss, of jobs with a validation loss."""
    rows = [n for n, job in enumerate(compared.jobs) if "eval_loss" in job.best]
    jobs = [(job.id, job.name, job.best["eval_loss"].value) for job in (compared.jobs[n] for n in rows)]
    fields = [(field.title, [field.values[n] for n in rows]) for field in compared.fields]
    return parallel_coordinates.plot(jobs, fields[:MAX_AXES], chart_words.series_words()["eval_loss"])


@router.get("/jobs/searches")
def list_searches(
    request: Request, principal: Reader, after: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """The hyperparameter searches, newest first."""
    with db.transaction() as session:
        rows, more = hyperparameter_search.list_searches(session, principal=principal, limit=PAGE_LENGTH, after=after)
        searches = hyperparameter_search.answers(session, rows)
    return page(request, "jobs/searches.html", principal=principal, searches=searches, next=more, after=after)


@router.get("/jobs/searches/{search_id}/importance")
@PREVIEWS
def show_importance(request: Request, principal: Reader, search_id: Id, part: Part = "") -> Response:
    """What each field of a search decides about its loss; with `part=fields` only that part of a comparison."""
    with db.transaction() as session:
        row = hyperparameter_search.get(session, principal=principal, search_id=search_id)
        search_results = importance.results(session, row)
    weights, problem = None, None
    try:
        weights = importance.compute(search_results)
    except PanelError as error:
        problem = error
    template = "jobs/_importance.html" if part == "fields" else "jobs/importance.html"
    return page(request, template, principal=principal, search=row, importance=weights, problem=problem)


@router.post("/jobs/searches/{search_id}/cancel")
def cancel_search(principal: Submitter, search_id: Id) -> Response:
    """Cancel the open jobs of a hyperparameter search and redirect to its comparison."""
    with db.transaction() as session:
        row = hyperparameter_search.cancel(session, principal=principal, search_id=search_id)
        ids = hyperparameter_search.answers(session, [row])[0].jobs
    for job_id in ids:
        notifications.notify_job_changed(job_id)
    return RedirectResponse(f"/jobs/compare?search={search_id}", status_code=303)


@router.get("/jobs/{job_id}/edit")
def show_edit(request: Request, principal: Submitter, job_id: Id) -> Response:
    """The form for the name, the tags and the notes of a job, whether its owner is notified, and its evaluation."""
    with db.transaction() as session:
        job = service.get(session, principal=principal, job_id=job_id)
        values = {"name": job.name, "tags": ", ".join(job.tags), "notes": job.notes, "is_notified": job.is_notified}
    return _edit_page(request, principal, job_id, {**values, "evaluation_corpora": job.evaluation_corpora})


def _edit_page(
    request: Request, principal: Principal, job_id: str, values: dict[str, Any], error: PanelError | None = None
) -> Response:
    with db.transaction() as session:
        is_over = service.get(session, principal=principal, job_id=job_id).state in TERMINAL
        corpora, _next = corpora_service.list_corpora(session, principal=principal, limit=200)
    return page(
        request,
        "jobs/edit.html",
        error.status if error is not None else 200,
        principal=principal,
        job_id=job_id,
        values=values,
        errors={problem.field: problem.message for problem in error.fields} if error is not None else {},
        corpora=[] if is_over else [one for one in corpora if one.state == "ready" and one.kind in EVALUATION_KINDS],
    )


@router.post("/jobs/{job_id}/edit")
def edit(request: Request, principal: Submitter, job_id: Id, form_data: FormBody) -> Response:
    """Rename, tag or describe a job and redirect to its page; if something is wrong, show the form again."""
    text = {name: value for name, value in form_data.items() if isinstance(value, str)}
    chosen = [str(value) for value in form_data.getlist("evaluation_corpora")][:16]
    try:
        changes = service.JobChanges(
            **labels.from_form(text).model_dump(),
            is_notified="is_notified" in text,
            evaluation_corpora=chosen,
        )
        with db.transaction() as session:
            service.change(session, principal=principal, job_id=job_id, changes=changes)
    except PanelError as error:
        if error.status != 422:
            raise
        return _edit_page(request, principal, job_id, {**text, "evaluation_corpora": chosen}, error)
    notifications.notify_job_changed(job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)
