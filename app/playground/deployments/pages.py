"""HTML routes of deployments: the list with the form to deploy a model, and the page of one."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from app.core import db
from app.core.errors import PanelError
from app.core.principal import Principal
from app.playground.deployments import calls, service
from app.playground.deployments.schemas import DeploymentAnswer, DeploymentChange, DeploymentRequest
from app.playground.inspection import service as inspection
from app.web.auth import Reader, Submitter
from app.web.errors import form_error
from app.web.forms import FormBody, errors_by_control
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import Id, Part, ShortText

router = APIRouter()
PAGE_ROWS = 50
DAYS = 7  # that the page of a deployment shows


@router.get("/deployments")
def show_deployments(
    request: Request, principal: Reader, model: ShortText | None = None, after: After = None, part: Part = ""
) -> Response:
    """The deployments that the user may call. `part=list` answers the list alone, for its live update."""
    return _index(request, principal, {"model": model or ""}, after, part)


def _index(
    request: Request,
    principal: Principal,
    values: Mapping[str, Any],
    after: str | None = None,
    part: str = "",
    error: PanelError | None = None,
) -> Response:
    with db.transaction() as session:
        rows, cursor = service.list_deployments(session, principal=principal, limit=PAGE_ROWS, after=after)
        deployments = service.answers(session, rows, principal)
        models = _models(session, principal)
    return page(
        request,
        "deployments/_list.html" if part == "list" else "deployments/index.html",
        error.status if error else 200,
        principal=principal,
        deployments=deployments,
        names=dict(models),
        models=models,
        values=defaultdict(str, values),
        fields=errors_by_control(error),
        error=error.message if error and not error.fields else "",
        next=cursor,
        after=after,
    )


def _models(session: Any, principal: Principal) -> list[tuple[str, str]]:
    """What can be deployed: IDs with names."""
    groups, _first = inspection.list_models(session, principal=principal)
    return [(model.id, model.label) for group in groups.values() for model in group]


@router.post("/deployments")
def deploy(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Deploy a model and go to its page."""
    values = _values(form)
    try:
        body = DeploymentRequest.model_validate(values)
        with db.transaction() as session:
            settings = body.model_dump(exclude={"name", "model"})
            row = service.create(session, principal=principal, name=body.name, model_id=body.model, **settings)
    except (ValidationError, PanelError) as error:
        return _index(request, principal, form, error=_problem(error))
    return RedirectResponse(f"/deployments/{row.id}", status_code=303)


def _values(form: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a form: empty ones are left out, and lists are separated by commas."""
    values: dict[str, Any] = {key: str(value).strip() for key, value in form.items() if str(value).strip()}
    for key in ("nodes", "users"):
        values[key] = [name.strip() for name in str(form.get(key, "")).split(",") if name.strip()]
    return values


def _problem(error: ValidationError | PanelError) -> PanelError:
    return error if isinstance(error, PanelError) else form_error(error)


@router.get("/deployments/{deployment_id}")
def show_deployment(request: Request, principal: Reader, deployment_id: Id, part: Part = "") -> Response:
    """One deployment: its replicas, its calls, how to call it. `part=state` answers only what changes by itself."""
    return _show(request, principal, deployment_id, part)


def _show(
    request: Request,
    principal: Principal,
    deployment_id: str,
    part: str = "",
    form: Mapping[str, Any] | None = None,
    error: PanelError | None = None,
) -> Response:
    with db.transaction() as session:
        row = service.get(session, principal=principal, deployment_id=deployment_id)
        models = _models(session, principal)
        hours = calls.usage_by_hour(session, row.id, db.now() - timedelta(days=DAYS))
        deployment = service.answer(session, row, principal)
        return page(
            request,
            "deployments/_state.html" if part == "state" else "deployments/show.html",
            error.status if error else 200,
            principal=principal,
            deployment=deployment,
            values=_form_of(deployment) if form is None else defaultdict(str, form),
            usage=calls.usages(session, [row.id], db.now() - timedelta(days=DAYS))[row.id],
            hours=hours,
            most=max((hour.requests for hour in hours), default=0),
            models=models,
            names=dict(models),
            fields=errors_by_control(error),
            error=error.message if error and not error.fields else "",
            address=str(request.base_url).rstrip("/"),
        )


def _form_of(deployment: DeploymentAnswer) -> dict[str, Any]:
    """The fields of the form as they are now, without nodes that were removed: saving it drops them."""
    nodes = [name for name in deployment.nodes if name not in deployment.removed_nodes]
    return {**deployment.model_dump(), "users": ", ".join(deployment.users), "nodes": ", ".join(nodes)}


@router.post("/deployments/{deployment_id}")
def change(request: Request, principal: Submitter, deployment_id: Id, form: FormBody) -> Response:
    """Change a deployment and go back to its page."""
    values = {"requests_per_minute": None, **_values(form)}
    try:
        changes = DeploymentChange.model_validate(values).model_dump(exclude_unset=True)
        with db.transaction() as session:
            service.change(session, principal=principal, deployment_id=deployment_id, changes=changes)
    except (ValidationError, PanelError) as error:
        problem = _problem(error)
        if problem.status in (403, 404):
            raise problem from None
        return _show(request, principal, deployment_id, form=form, error=problem)
    return RedirectResponse(f"/deployments/{deployment_id}", status_code=303)


@router.post("/deployments/{deployment_id}/delete")
def delete(principal: Submitter, deployment_id: Id) -> Response:
    """Remove a deployment and go to the list."""
    with db.transaction() as session:
        service.delete(session, principal=principal, deployment_id=deployment_id)
    return RedirectResponse("/deployments", status_code=303)
