"""HTML routes of the form of a new job."""

import hashlib
import json
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from app.core import db
from app.core.errors import PanelError
from app.core.formatting import number
from app.core.i18n import _, translate
from app.core.model_base import new_id
from app.core.principal import Principal
from app.core.settings import settings
from app.corpora import problems
from app.corpora import service as corpora
from app.corpora import tokenizers as stored_tokenizers
from app.corpora.record_kinds import KIND_WORDS
from app.jobs import form_plan, form_start, presets, service
from app.jobs.form_plan import FormPlan
from app.jobs.lifecycle import notifications
from app.jobs.planning import answers
from app.jobs.planning import base_model as bases
from app.jobs.planning.answers import ProposeAnswer
from app.jobs.previews import batch, chat_template, samples
from app.jobs.previews.chat_template import PreviewRequest
from app.jobs.searches import service as hyperparameter_search
from app.jobs.searches.service import HyperparameterSearchRequest
from app.jobs.views import form, form_code, form_controls
from app.jobs.views.form import SubmittedForm
from app.web.auth import Reader, Submitter
from app.web.errors import form_error
from app.web.forms import FormBody
from app.web.json_body import StrictRoute
from app.web.pages import page
from app.web.parameters import ShortText
from app.web.preview_process import PREVIEWS
from trainer.families import TEXT_OBJECTIVES
from trainer.formats import corpus_formats
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE, EVALUATION_KINDS
from trainer.planning.proposals import BUDGETS
from trainer.spec import MAX_STEPS
from trainer.spec_errors import SpecError

router = APIRouter(route_class=StrictRoute)

PRESETS_SHOWN = 20  # the others are in their list
MAX_TEMPLATE_CHARACTERS = 20_000  # as TrainSpec allows


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
            job = service.get(session, principal=principal, job_id=like)
            evaluation = job.evaluation_corpora or job.spec.evaluation_corpora  # those of the job wait for its end
            start = form.prefill_copy({**job.spec.model_dump(), "evaluation_corpora": evaluation})
        elif origin is not None:
            start = form.prefill_continue(form_start.origin_of(session, principal, origin))
        else:
            base = bases.find(session, principal, base_model)
            fitting = base.recipe if base is not None else form_start.recipe_for(session, principal, corpus)
            start = SubmittedForm({"recipe": recipe or fitting}, corpus)
            start = start if preset is None else presets.fill_form(session, principal, start, preset)
    fields = {name: value for name, value in request.query_params.items() if name in form.properties()}
    return _draw_form(request, principal, replace(start, fields={**start.fields, **fields}))


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
            names = corpora.corpus_names(session, principal=principal, ids=[*spec.corpora, *spec.validation_corpora])
        answer = samples.preview(spec, inputs, step=step, first=first, count=batch.SAMPLES_SHOWN)
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
        num_shown=batch.SAMPLES_SHOWN,
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
        return _submit_search(request, principal, submitted, search, key)
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
    fields: dict[str, Any],
    key: str,
) -> Response:
    """Submit the jobs of a hyperparameter search and go to their comparison."""
    try:
        search = HyperparameterSearchRequest.model_validate(fields)
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
        offered_presets, _rest = presets.list_presets(session, principal=principal, limit=PRESETS_SHOWN)
        context = form_start.form_context(session, principal, submitted)
        plan = FormPlan(problem=refusal)
        if refusal is None:
            context = replace(context, form=form_plan.without_unusable(context, texts))
            plan = form_plan.make_plan(session, principal, context.form)
        base_models = form_start.base_model_choices(session, principal, context.form) if context.origin is None else []
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
        fit=plan.fit,
        fit_words=form_start.fit_words(),
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
        formats=corpus_formats.FILE_ENDINGS,
        encodings=problems.ENCODINGS,
        max_bytes=settings().max_upload_bytes,
        evaluation_kinds=EVALUATION_KINDS,
        corpus_names={corpus.id: corpus.name for corpus in texts},
        tokenizers=[(t.id, _("{name} · {n} tokens", name=t.name, n=number(t.vocab_size or 0))) for t in tokenizers],
        base_models=base_models,
        proposal=proposal,
        proposal_error=proposal_error,
        presets=offered_presets,
        preset_error=preset_error,
        saved_preset=saved_preset,
        proposal_seconds=BUDGETS,
        code=form_code.code_of(context.form, str(request.base_url).rstrip("/")),
        key=submitted.fields.get("key") or new_id(),
    )
