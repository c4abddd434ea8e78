"""HTML routes of jobs: the form of a new one, and the page of each."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.core import db, sharing
from app.core.errors import PanelError
from app.core.formatting import number
from app.core.i18n import _, locale, translate
from app.core.model_base import new_id
from app.core.models import Checkpoint, Job
from app.core.principal import Principal, is_visible, visible
from app.corpora import service as corpora
from app.corpora import tokenizers as stored_tokenizers
from app.corpora.record_kinds import KIND_WORDS
from app.jobs import deletion, form_plan, job_parts, presets, service, stream
from app.jobs.archives import origin as archive_origin
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.form_plan import FormPlan
from app.jobs.lifecycle import notifications
from app.jobs.planning import accuracy, answers
from app.jobs.planning import base_model as bases
from app.jobs.planning.answers import ProposeAnswer
from app.jobs.previews import batch, chat_template, samples
from app.jobs.previews.chat_template import PreviewRequest
from app.jobs.searches import service as hyperparameter_search
from app.jobs.searches.service import HyperparameterSearchRequest
from app.jobs.views import chart_words, form, form_controls
from app.jobs.views.form import Origin, SubmittedForm
from app.jobs.views.form_controls import FormContext
from app.web.auth import Reader, Submitter
from app.web.errors import form_error
from app.web.event_source import event_source
from app.web.forms import FormBody
from app.web.json_body import StrictRoute
from app.web.pages import page
from app.web.parameters import Id, ShortText
from app.web.preview_process import PREVIEWS
from app.web.revocation import end_unless
from trainer.families import ANSWER_OBJECTIVES, TEXT_OBJECTIVES, uses
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE
from trainer.planning.proposals import BUDGETS
from trainer.spec import MAX_STEPS
from trainer.spec_errors import SpecError

router = APIRouter(route_class=StrictRoute)

SAMPLES_SHOWN = 8  # of a batch
PRESETS_SHOWN = 20  # the others are in their list
MAX_TEMPLATE_CHARACTERS = 20_000  # as TrainSpec allows


# ---- a new job ------------------------------------------------------------------------------------------------------


@router.get("/jobs/new")
def show_form(
    request: Request,
    principal: Submitter,
    corpus: Annotated[list[ShortText], Query(max_length=1000)] = [],  # noqa: B006 - FastAPI copies it
    recipe: Annotated[str, Query(max_length=40)] = "",
    base_model: Annotated[str | None, Query(max_length=64, description="The base model to start from.")] = None,
    origin: Annotated[
        str | None, Query(alias="from", max_length=64, description="The checkpoint to continue from.")
    ] = None,
    like: Annotated[str | None, Query(max_length=64, description="The job to fill the form in with.")] = None,
    preset: Annotated[str | None, Query(max_length=64, description="The preset to fill the form in with.")] = None,
) -> Response:
    """The form, filled in by the link that led here: a recipe and corpora, a checkpoint, another job, a preset; then
    fields.
    """
    with db.transaction() as session:
        if like is not None:
            start = form.prefill_copy(service.get(session, principal=principal, job_id=like).spec.model_dump())
        elif origin is not None:
            start = form.prefill_continue(_origin(session, principal, origin))
        else:
            base = bases.find(session, principal, base_model)
            fitting = base.recipe if base is not None else _recipe_for(session, principal, corpus)
            start = SubmittedForm({"recipe": recipe or fitting}, corpus)
            start = start if preset is None else presets.fill_form(session, principal, start, preset)
    fields = {name: value for name, value in request.query_params.items() if name in form.properties()}
    return _draw_form(request, principal, replace(start, fields={**start.fields, **fields}))


def _recipe_for(session: Session, principal: Principal, ids: list[str]) -> str:
    """The recipe that learns from what the documents of the first corpus that there is are."""
    for corpus_id in ids:
        with suppress(PanelError):
            return form.recipe_of_kind(corpora.get_corpus(session, principal=principal, corpus_id=corpus_id).kind)
    return "tiny"


def _origin(session: Session, principal: Principal, checkpoint_id: str) -> Origin:
    """A checkpoint to continue from, even one whose files were deleted: the jobs that did so still name it.

    Raises PanelError (404) if the user cannot see it.
    """
    checkpoint = visible(session, Checkpoint, checkpoint_id, principal=principal)
    job = service.get(session, principal=principal, job_id=checkpoint.job_id)
    names = [name or _("a deleted corpus") for _id, name in _corpus_names(session, principal, job.spec.corpora)]
    return Origin(
        checkpoint.id, checkpoint.step, job.id, job.name, effective_spec(job).model_dump(), names, checkpoint.state
    )


@router.post("/jobs/plan")
def plan_form(request: Request, principal: Reader, form_data: FormBody) -> Response:
    """The form as it was sent, with its plan and its errors. The page's script takes these over while one types.

    The button of a preset sends its ID, and the form is drawn with its fields.
    """
    submitted = form.read_form(form_data)
    if preset_id := submitted.fields.get("preset"):
        with db.transaction() as session:
            submitted = presets.fill_form(session, principal, submitted, preset_id[:64])
    return _draw_form(request, principal, submitted)


@router.post("/jobs/presets")
def save_preset(request: Request, principal: Submitter, form_data: FormBody) -> Response:
    """The form as it was sent, and whether its settings are now saved under the name in it."""
    submitted = form.read_form(form_data)
    try:
        with db.transaction() as session:
            saved = presets.save_form(session, principal, submitted).name
    except SpecError as error:
        return _draw_form(request, principal, submitted, preset_error=form.with_titles(str(error)))
    except PanelError as error:
        return _draw_form(request, principal, submitted, preset_error=error.message)
    return _draw_form(request, principal, form.without_fields(submitted, presets.CONTROLS), saved_preset=saved)


@router.post("/jobs/propose")
def propose(request: Request, principal: Reader, form_data: FormBody) -> Response:
    """The form filled in with a model for the corpora and the time that were chosen."""
    submitted = form.read_form(form_data)
    selected = submitted.fields.get("proposal_seconds", "")
    seconds = next((choice for choice in BUDGETS if str(choice) == selected), 3600)
    if not submitted.corpora:
        return _draw_form(request, principal, submitted, proposal_error=_("Choose at least one corpus."))
    try:
        with db.transaction() as session:
            proposal = service.propose(session, principal=principal, corpora=submitted.corpora, seconds=seconds)
    except PanelError as error:
        return _draw_form(request, principal, submitted, proposal_error=error.message)
    answer = answers.propose_answer(list(submitted.corpora), proposal)
    return _draw_form(request, principal, form.with_proposal(submitted, proposal), proposal=answer)


@router.post("/jobs/preview-template")
@PREVIEWS
def preview_template(request: Request, principal: Submitter, form_data: FormBody) -> Response:
    """What the chat template of a form makes of a short conversation."""
    submitted = form.read_form(form_data)
    template = submitted.fields.get("chat_template", "").strip()[:MAX_TEMPLATE_CHARACTERS] or None
    with db.transaction() as session:
        base = chat_template.base_directory(session, principal, submitted.base_id or None)
    preview, problem = None, None
    try:
        preview = chat_template.preview(PreviewRequest(chat_template=template), base)
    except PanelError as error:
        problem = error
    status = problem.status if problem else 200
    return page(request, "jobs/template.html", status, principal=principal, preview=preview, problem=problem)


@router.post("/jobs/samples")
@PREVIEWS
def show_samples(
    request: Request,
    principal: Submitter,
    form_data: FormBody,
    step: Annotated[int, Query(ge=1, le=MAX_STEPS)] = 1,
    first: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> Response:
    """The samples that the job of a form would read at a step; nothing is submitted."""
    submitted = form.read_form(form_data)
    spec, answer, problem, names = None, None, None, {}
    try:
        with db.transaction() as session:
            resolved = service.resolve_request(session, principal=principal, request=form.to_partial_spec(submitted))
            spec = resolved.spec
            inputs = samples.inputs_of(session, spec, resolved.corpora, resolved.parent)
            names = dict(_corpus_names(session, principal, [*spec.corpora, *spec.validation_corpora]))
        answer = samples.preview(spec, inputs, step=step, first=first, count=SAMPLES_SHOWN)
    except SpecError as error:
        problem = form_plan.as_panel_error(error)
    except PanelError as error:
        problem = error
    errors = form.errors_by_field(problem.fields, submitted) if problem else {}
    return page(
        request,
        "jobs/samples.html",
        problem.status if problem else 200,
        principal=principal,
        submitted=[(name, value) for name, value in form_data.multi_items() if isinstance(value, str)],
        spec=spec,
        answer=answer,
        problem=problem,
        message=form_plan.explain(problem, errors, ()),
        corpus_names=names,
        has_records=spec is not None and spec.objective not in TEXT_OBJECTIVES,
        read_bytes=samples.READ_BYTES,
        step=step,
        first=first,
        num_shown=SAMPLES_SHOWN,
    )


@router.post("/jobs")
def submit(request: Request, principal: Submitter, form_data: FormBody) -> Response:
    """Queue the job and go to its page; sent twice, the same form gives the same job."""
    submitted = form.read_form(form_data)
    partial_spec = form.to_partial_spec(submitted)
    search = form.search_request(submitted)
    body = hashlib.sha256(json.dumps([partial_spec, search], sort_keys=True).encode()).hexdigest()[:24]
    key = f"form-{submitted.fields.get('key', '')[:64] or new_id()}-{body}"
    if search is not None:
        return _submit_search(request, principal, submitted, partial_spec, search, key)
    try:
        with db.transaction() as session:
            job, _new = service.submit(session, principal=principal, request=partial_spec, idempotency_key=key)
            job_id = job.id
    except SpecError as error:
        return _draw_form(request, principal, submitted, refusal=form_plan.as_panel_error(error))
    except PanelError as error:
        return _draw_form(request, principal, submitted, refusal=error)
    notifications.notify_job_changed(job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)


def _submit_search(
    request: Request,
    principal: Principal,
    submitted: SubmittedForm,
    partial_spec: dict[str, Any],
    fields: dict[str, Any],
    key: str,
) -> Response:
    """Submit the jobs of a hyperparameter search and go to their comparison."""
    name = submitted.fields.get("name", "").strip() or submitted.recipe
    early_stopping = submitted.fields.get("early_stopping") == "true"
    try:
        search = HyperparameterSearchRequest(
            name=name[:1_000], spec=partial_spec, early_stopping=early_stopping, **fields
        )
        with db.transaction() as session:
            row = hyperparameter_search.create(session, principal=principal, request=search, idempotency_key=key)
            (answer,) = hyperparameter_search.answers(session, [row])
    except ValidationError as error:
        return _draw_form(request, principal, submitted, refusal=form_error(error))
    except PanelError as error:
        return _draw_form(request, principal, submitted, refusal=error)
    for job_id in answer.jobs:
        notifications.notify_job_changed(job_id)
    return RedirectResponse(f"/jobs/compare?search={answer.id}", status_code=303)


def _draw_form(
    request: Request,
    principal: Principal,
    submitted: SubmittedForm,
    *,
    refusal: PanelError | None = None,
    proposal: ProposeAnswer | None = None,
    proposal_error: str | None = None,
    preset_error: str | None = None,
    saved_preset: str | None = None,
) -> Response:
    """The page of the form with its plan; after a `refusal` of its submission with what was wrong instead."""
    with db.transaction() as session:
        texts, _rest = corpora.list_corpora(session, principal=principal, limit=200)
        tokenizers, _rest = stored_tokenizers.list_tokenizers(session, principal=principal, state="ready")
        choices = bases.offers(session, principal=principal)
        offered_presets, _rest = presets.list_presets(session, principal=principal, limit=PRESETS_SHOWN)
        context = _form_context(session, principal, submitted)
        plan = FormPlan(problem=refusal)
        if refusal is None:
            context = replace(context, form=form_plan.without_unusable(context, texts))
            plan = form_plan.make_plan(session, principal, context.form)
    errors = form.errors_by_field(plan.problem.fields, submitted) if plan.problem else {}
    context = replace(context, errors=errors, planned=form_plan.steps_and_epochs(plan.answer))
    return page(
        request,
        "jobs/new.html",
        refusal.status if refusal else 200,
        principal=principal,
        submitted=context.form,
        origin=context.origin,
        base=context.base,
        errors=errors,
        plan=form_plan.with_titles(plan.answer),
        fix=form.fix_value(plan.fix),
        note=form_plan.explain(plan.problem, errors, context.shown_fields()),
        is_refused=refusal is not None,
        recipes=form_controls.recipe_cards(),
        kinds={kind: translate(KIND_WORDS[kind]) for kind in CORPUS_KINDS_BY_OBJECTIVE[context.objective]},
        kind_words={kind: translate(word) for kind, word in KIND_WORDS.items()},
        groups=form_controls.groups(context),
        search_rows=form.search_rows(context.form),
        searchable_fields=form_controls.searchable_fields(context),
        num_combinations=form.num_search_jobs(context.form),
        uses_chat_template=context.uses("chat_template"),
        corpora=[corpus for corpus in texts if corpus.state != "failed"],
        corpus_names={corpus.id: corpus.name for corpus in texts},
        tokenizers=[(t.id, _("{name} · {n} tokens", name=t.name, n=number(t.vocab_size or 0))) for t in tokenizers],
        base_models=[(choice.id, choice.label) for choice in choices],
        proposal=proposal,
        proposal_error=proposal_error,
        presets=offered_presets,
        preset_error=preset_error,
        saved_preset=saved_preset,
        proposal_seconds=BUDGETS,
        key=submitted.fields.get("key") or new_id(),
    )


def _form_context(session: Session, principal: Principal, submitted: SubmittedForm) -> FormContext:
    """What the job of a form starts from; empty if that does not exist, which its plan reports."""
    origin = base = None
    if submitted.origin_id:
        with suppress(PanelError):
            origin = _origin(session, principal, submitted.origin_id)
    elif submitted.base_id:
        with suppress(PanelError):
            base = bases.find(session, principal, submitted.base_id)
    return FormContext(submitted, {}, origin, base)


# ---- one job --------------------------------------------------------------------------------------------------------


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
        names = _corpus_names(session, principal, job.spec.corpora)
        origin = None
        if job.resume_from_id:
            with suppress(PanelError):  # it is in the trash, or no longer shared
                origin = _origin(session, principal, job.resume_from_id)
        shared = sharing.context(session, principal, job)
        base = bases.link(session, principal, job.spec.base_model)
        imported = archive_origin.find(session, principal, job)
        planned_memory = accuracy.planned_memory(job.facts)
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
        corpora=names,
        spec_rows=_spec_rows(context["job"].spec),
        words=chart_words.chart_words(),
        series=chart_words.series_words(),
        planned_memory=planned_memory,
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
        view = batch.view_batch(job_id, spec, step, first, SAMPLES_SHOWN)
    except PanelError as error:
        problem = error
    with db.transaction() as session:
        names = dict(_corpus_names(session, principal, view.corpora)) if view else {}
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
        num_shown=SAMPLES_SHOWN,
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


def _corpus_names(session: Session, principal: Principal, ids: list[str]) -> list[tuple[str, str | None]]:
    """The IDs and names of a job's corpora; None for the name of a deleted one."""
    names: list[tuple[str, str | None]] = []
    for corpus_id in ids:
        try:
            name = corpora.get_corpus(session, principal=principal, corpus_id=corpus_id).name
            names.append((corpus_id, name))
        except PanelError:
            names.append((corpus_id, None))
    return names


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
        if name not in ("name", "corpora") and uses(spec, name)
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


@router.post("/jobs/{job_id}/delete")
def delete(principal: Submitter, job_id: Id) -> Response:
    """Move a job that has ended to the trash and redirect to the list."""
    with db.transaction() as session:
        deletion.delete(session, principal=principal, job_id=job_id)
    notifications.notify_job_changed(job_id)
    return RedirectResponse(f"/jobs?trashed={job_id}", status_code=303)


def _request_change(verb: Callable[..., Job], principal: Principal, job_id: str) -> Response:
    try:
        with db.transaction() as session:
            verb(session, principal=principal, job_id=job_id)
    except PanelError as error:
        if error.status != 409:  # it ended a moment ago: its page says how
            raise
    notifications.notify_job_changed(job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)
