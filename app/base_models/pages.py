"""HTML routes of imported base models: the list, and the page of one model."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.base_models import limits, problems, service, uploads
from app.base_models.bulk import LABELS, ROWS
from app.core import db, labels, queue, sharing
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import ImportedModel
from app.core.principal import Principal
from app.core.settings import settings
from app.web import bulk
from app.web.auth import Reader, Submitter
from app.web.bulk import BulkOutcome
from app.web.forms import FormBody
from app.web.list_view import OWNERS, ListView
from app.web.pages import handle_form_action, page
from app.web.paging import After
from app.web.parameters import Id, Part
from trainer.limits import limits as find_limits

router = APIRouter()
PAGE_ROWS = 50


def _view(query: Mapping[str, str]) -> ListView:
    """Which models the list shows."""
    source, state = ("", *get_args(service.ModelSource)), ("", *get_args(service.ModelState))
    return ListView.of("/models", query, get_args(service.ModelOrder), source=source, state=state, tag=(), owner=OWNERS)


def _index(
    request: Request,
    principal: Principal,
    after: str | None,
    part: str = "",
    error: PanelError | None = None,
    view: ListView | None = None,
    outcome: BulkOutcome | None = None,
) -> Response:
    view = view or _view(request.query_params)
    with db.transaction() as session:
        rows, cursor = service.list_models(
            session,
            principal=principal,
            limit=PAGE_ROWS,
            after=after,
            search=view["q"],
            tag=view["tag"],
            source=view["source"],
            state=view["state"],
            owner=view["owner"] or None,
            order=view["order"],
        )
        tags = labels.list_tags(session, principal=principal, table=ImportedModel)
        tasks = service.import_tasks(session, rows)
    return page(
        request,
        "models/_list.html" if part == "list" else "models/index.html",
        error.status if error else 422 if outcome and outcome.is_refused else 200,
        outcome=outcome,
        tags=view.choices("tag", tags),
        principal=principal,
        models=rows,
        view=view,
        tasks=tasks,
        next=cursor,
        after=after,
        error=error.message if error else "",
        max_bytes=settings().max_model_bytes,
        is_offline=settings().hf_hub_offline,
        endpoint=settings().hf_endpoint,
    )


@router.get("/models")
def show_models(request: Request, principal: Reader, after: After = None, part: Part = "") -> Response:
    """The list of models with the forms to upload or import one; with `part=list` only the list, to update it."""
    return _index(request, principal, after, part)


@router.post("/models")
def import_from_hub(request: Request, principal: Submitter, reference: Annotated[str, Form()] = "") -> Response:
    """Import a model from the hub and redirect to its page."""
    try:
        with db.transaction() as session:
            model_id = service.create(session, principal=principal, name="", reference=reference or "?").id
    except PanelError as error:
        return _index(request, principal, None, error=error)
    queue.flush_outbox()
    return RedirectResponse(f"/models/{model_id}", status_code=303)


def _model(request: Request, principal: Principal, model_id: str, error: PanelError | None = None) -> Response:
    with db.transaction() as session:
        model = service.get(session, principal=principal, model_id=model_id)
        tasks = service.import_tasks(session, [model])
        jobs = service.jobs_of(session, principal=principal, model_id=model_id)
        shared = sharing.context(session, principal, model)
    unfit = find_limits(model.facts) if model.state == "ready" else {}
    reasons = list(dict.fromkeys(limits.sentence(reason) for reason in unfit.values()))  # some hold for several uses
    files: list[Any] = model.files or [{"name": name, "size": size} for name, size in uploads.listed(model_id)]
    return page(
        request,
        "models/show.html",
        error.status if error else 200,
        principal=principal,
        **shared,
        model=model,
        tasks=tasks,
        jobs=jobs,
        limits=reasons,
        files=files,
        problems=[problems.sentence(problem) for problem in model.problems],
        error=error.message if error else "",
    )


@router.get("/models/{model_id}")
def show_model(request: Request, principal: Reader, model_id: Id, part: Part = "") -> Response:
    """The page of one model; with `part=state` only the state of its import, to update it."""
    if part != "state":
        return _model(request, principal, model_id)
    with db.transaction() as session:
        model = service.get(session, principal=principal, model_id=model_id)
        tasks = service.import_tasks(session, [model])
    return page(request, "models/_state.html", principal=principal, model=model, tasks=tasks)


@router.post("/models/bulk")
def change_many(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Delete the models that were chosen in the list; what a deletion frees is to be confirmed."""
    view = _view(bulk.text_fields(form))
    outcome = bulk.change_rows(request, principal, ROWS, view, form, _("Delete the chosen base models?"))
    if isinstance(outcome, Response):
        return outcome
    return _index(request, principal, None, view=view, outcome=outcome)


@router.post("/models/{model_id}/import")
def import_again(request: Request, principal: Submitter, model_id: Id) -> Response:
    """Import the uploaded files, or retry an import that failed."""

    def verb(session: Any) -> None:
        service.begin_import(session, principal=principal, model_id=model_id)

    return _change(request, principal, model_id, verb, f"/models/{model_id}")


LABELS.add_routes(router, "model_id")


@router.post("/models/{model_id}/delete")
def delete_model(request: Request, principal: Submitter, model_id: Id) -> Response:
    """Move a model to the trash and redirect to the list."""

    def verb(session: Any) -> None:
        service.delete(session, principal=principal, model_id=model_id)

    return _change(request, principal, model_id, verb, f"/models?trashed={model_id}")


def _change(request: Request, principal: Principal, model_id: str, verb: Any, then: str) -> Response:
    return handle_form_action(verb, then, lambda error: _model(request, principal, model_id, error))
