"""HTML routes of synthetic data: generations and endpoints, the form of a generation, and the review of its records."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.core import db
from app.core.errors import PanelError
from app.core.i18n import locale
from app.core.principal import Principal
from app.corpora import service as corpora
from app.playground import service as playground
from app.playground.deployments import service as deployments
from app.synthetic import drafts, endpoints, prompts, result, service, views
from app.synthetic.endpoint_schemas import ModelEndpointRequest, endpoint_answer
from app.synthetic.schemas import DraftState, RecordCorpusRequest, RecordGenerationRequest, ResumeRequest
from app.web.auth import Reader, Submitter
from app.web.errors import form_error
from app.web.forms import FormBody, errors_by_control
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import Id, Part

router = APIRouter()
PAGE_ROWS = 50
MAX_OFFERED = 200  # corpora, endpoints and models in forms
DEFAULTS: dict[str, Any] = {name: field.default for name, field in RecordGenerationRequest.model_fields.items()}


@router.get("/synthetic")
def show_generations(request: Request, principal: Reader, after: After = None) -> Response:
    """Generations of records, and the endpoints of models that can write them."""
    return _index(request, principal, {}, after)


def _index(
    request: Request,
    principal: Principal,
    values: Mapping[str, Any],
    after: str | None = None,
    error: PanelError | None = None,
) -> Response:
    with db.transaction() as session:
        rows, cursor = service.list_generations(session, principal=principal, limit=PAGE_ROWS, after=after)
        generations = [views.generation_answer(session, row) for row in rows]
        own_endpoints, _next = endpoints.list_endpoints(session, principal=principal, limit=MAX_OFFERED)
    return page(
        request,
        "synthetic/index.html",
        error.status if error else 200,
        principal=principal,
        generations=generations,
        endpoints=[endpoint_answer(row) for row in own_endpoints],
        values=defaultdict(str, values),
        next=cursor,
        **_errors(error),
    )


def _errors(error: PanelError | None) -> dict[str, Any]:
    """What is wrong with each field, and in all; empty for the others."""
    return {"fields": errors_by_control(error), "error": error.message if error and not error.fields else ""}


def _values(form: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a form without empty ones."""
    return {key: value for key, value in form.items() if isinstance(value, str) and value.strip()}


def _do(verb: Callable[[], Response], refused: Callable[[PanelError], Response]) -> Response:
    """Run a verb; what it refuses is drawn, but a 404."""
    try:
        return verb()
    except ValidationError as error:
        return refused(form_error(error))
    except PanelError as error:
        if error.status == 404:
            raise
        return refused(error)


@router.post("/synthetic/endpoints")
def add_endpoint(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Add an endpoint and go back to the list."""

    def verb() -> Response:
        body = ModelEndpointRequest.model_validate(_values(form))
        with db.transaction() as session:
            endpoints.create(session, principal=principal, request=body)
        return RedirectResponse("/synthetic#endpoints", status_code=303)

    values = {name: value for name, value in form.items() if name != "api_key"}
    return _do(verb, lambda error: _index(request, principal, values, error=error))


@router.post("/synthetic/endpoints/{model_endpoint_id}/delete")
def delete_endpoint(principal: Submitter, model_endpoint_id: Id) -> Response:
    """Delete an endpoint and go back to the list."""
    with db.transaction() as session:
        endpoints.delete(session, principal=principal, endpoint_id=model_endpoint_id)
    return RedirectResponse("/synthetic#endpoints", status_code=303)


@router.get("/synthetic/new")
def new_generation(request: Request, principal: Reader, corpus: Annotated[str, Query(max_length=32)] = "") -> Response:
    """The form that starts a generation."""
    return _form(request, principal, {"corpus": corpus})


def _form(
    request: Request, principal: Principal, values: Mapping[str, Any], error: PanelError | None = None
) -> Response:
    with db.transaction() as session:
        rows, _next = corpora.list_corpora(session, principal=principal, limit=MAX_OFFERED)
        writers = _writers(session, principal)
    ready = [(row.id, row.name) for row in rows if row.state == "ready"]
    return page(
        request,
        "synthetic/new.html",
        error.status if error else 200,
        principal=principal,
        corpora=ready,
        writers=writers,
        templates={kind: prompts.default_template(kind, locale()) for kind in prompts.TEMPLATES},
        values={**DEFAULTS, "writer": "", **values},
        **_errors(error),
    )


def _writers(session: Session, principal: Principal) -> list[tuple[str, str]]:
    """Who can write records: deployments and models here, then endpoints; the value says which of both."""
    deployed, _next = deployments.list_deployments(session, principal=principal, limit=MAX_OFFERED, after=None)
    groups = playground.list_models(session, principal=principal)
    models = [(choice.id, choice.label) for group in groups for choice in group.choices]
    rows, _next = endpoints.list_endpoints(session, principal=principal, limit=MAX_OFFERED)
    return [
        *((f"model:{row.id}", row.name) for row in deployed),
        *((f"endpoint:{row.id}", f"{row.name} · {row.model}") for row in rows),
        *((f"model:{model_id}", label) for model_id, label in models),
    ]


@router.post("/synthetic")
def start_generation(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Start a generation and go to its page."""

    def verb() -> Response:
        values = _values(form)
        place, _colon, writer = str(values.pop("writer", "")).partition(":")
        if place in ("model", "endpoint"):
            values[place] = writer
        if values.get("kind") == "text":
            values["records_per_document"] = "1"
        generation = service.start(principal, RecordGenerationRequest.model_validate(values))
        return RedirectResponse(f"/synthetic/{generation.id}", status_code=303)

    return _do(verb, lambda error: _form(request, principal, dict(form), error))


@router.get("/synthetic/{generation_id}")
def show_generation(
    request: Request,
    principal: Reader,
    generation_id: Id,
    state: Annotated[DraftState | None, Query()] = None,
    duplicates: Annotated[bool, Query()] = False,
    after: After = None,
    part: Part = "",
) -> Response:
    """A generation with the table in which its records are reviewed; `part=state` answers only how far it is."""
    return _show(request, principal, generation_id, state, duplicates, after, part)


def _show(
    request: Request,
    principal: Principal,
    generation_id: str,
    state: DraftState | None = None,
    duplicates: bool = False,
    after: str | None = None,
    part: str = "",
    error: PanelError | None = None,
) -> Response:
    with db.transaction() as session:
        row = service.get(session, principal=principal, generation_id=generation_id)
        rows, cursor = drafts.list_drafts(
            session, row, state=state, only_duplicates=duplicates, limit=PAGE_ROWS, after=after
        )
        kind = result.corpus_kind(row)
        own, _next = corpora.list_corpora(session, principal=principal, limit=MAX_OFFERED)
        context = {
            "generation": views.generation_answer(session, row),
            "task": service.task_of(session, row),
            "stopped_by": row.stopped_by,
            "drafts": views.draft_answers(session, row, rows),
            "problems": {code: views.problem_sentence(code) for code in row.malformed},
        }
    fitting = [one for one in own if one.owner_id is not None and one.kind == kind and one.state == "ready"]
    return page(
        request,
        "synthetic/_state.html" if part == "state" else "synthetic/show.html",
        error.status if error else 200,
        principal=principal,
        **context,
        corpora=[(one.id, one.name) for one in fitting],
        state=state or "",
        duplicates=duplicates,
        next=cursor,
        **_errors(error),
    )


@router.post("/synthetic/{generation_id}/resume")
def resume_generation(request: Request, principal: Submitter, generation_id: Id, form: FormBody) -> Response:
    """Ask about the documents that are left, with a higher limit if one ended it."""

    def verb() -> Response:
        body = ResumeRequest.model_validate(_values(form))
        service.resume(principal, generation_id, body.max_total_tokens, body.max_cost)
        return RedirectResponse(f"/synthetic/{generation_id}", status_code=303)

    return _do(verb, lambda error: _show(request, principal, generation_id, error=error))


@router.post("/synthetic/{generation_id}/corpus")
def make_corpus(request: Request, principal: Submitter, generation_id: Id, form: FormBody) -> Response:
    """Make a corpus of the accepted records and go to its page."""

    def verb() -> Response:
        corpus = result.make_corpus(principal, generation_id, RecordCorpusRequest.model_validate(_values(form)))
        return RedirectResponse(f"/corpora/{corpus.id}", status_code=303)

    return _do(verb, lambda error: _show(request, principal, generation_id, error=error))


@router.post("/synthetic/{generation_id}/delete")
def delete_generation(request: Request, principal: Submitter, generation_id: Id) -> Response:
    """Delete a generation and go to the list."""

    def verb() -> Response:
        with db.transaction() as session:
            service.delete(session, principal=principal, generation_id=generation_id)
        return RedirectResponse("/synthetic", status_code=303)

    return _do(verb, lambda error: _show(request, principal, generation_id, error=error))
