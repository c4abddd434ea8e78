"""JSON routes of deployments."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from app.core import db
from app.core.paging import Listing
from app.playground.deployments import calls, service
from app.playground.deployments.schemas import DeploymentAnswer, DeploymentChange, DeploymentRequest, HourAnswer
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["deployments"])

_SETTINGS = ("node_unknown", "user_unknown", "checkpoint_unknown", "checkpoint_mute", "checkpoint_gone")


@router.get("/deployments")
def list_deployments(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[DeploymentAnswer]:
    """List the deployments that you may call, newest first."""
    with db.transaction() as session:
        rows, cursor = service.list_deployments(session, principal=principal, limit=limit, after=after)
        return Listing(data=service.answers(session, rows, principal), next=cursor)


@router.post(
    "/deployments",
    status_code=201,
    responses=errors(
        *("deployment_name_taken", "deployment_name_reserved", "deployments_limit", "name_missing", "name_too_long"),
        *_SETTINGS,
    ),
)
def create_deployment(principal: Submitter, body: DeploymentRequest) -> DeploymentAnswer:
    """Keep a model in memory under a name: a `checkpoint` for /api/v1/generate, and a `model` under /v1."""
    with db.transaction() as session:
        settings = body.model_dump(exclude={"name", "model"})
        row = service.create(session, principal=principal, name=body.name, model_id=body.model, **settings)
        return service.answer(session, row, principal)


@router.get("/deployments/{deployment_id}")
def get_deployment(principal: Reader, deployment_id: Id) -> DeploymentAnswer:
    """Get a deployment with its replicas and the calls of the last day."""
    with db.transaction() as session:
        row = service.get(session, principal=principal, deployment_id=deployment_id)
        return service.answer(session, row, principal)


@router.put("/deployments/{deployment_id}", responses=errors("deployment_not_yours", *_SETTINGS))
def change_deployment(principal: Submitter, deployment_id: Id, body: DeploymentChange) -> DeploymentAnswer:
    """Change a deployment. Another model takes over without a gap, once it is loaded."""
    with db.transaction() as session:
        changes = body.model_dump(exclude_unset=True)
        row = service.change(session, principal=principal, deployment_id=deployment_id, changes=changes)
        return service.answer(session, row, principal)


@router.delete("/deployments/{deployment_id}", status_code=204, responses=errors("deployment_not_yours"))
def delete_deployment(principal: Submitter, deployment_id: Id) -> None:
    """Remove a deployment. Nodes free its memory within seconds."""
    with db.transaction() as session:
        service.delete(session, principal=principal, deployment_id=deployment_id)


@router.get("/deployments/{deployment_id}/usage")
def get_usage(
    principal: Reader, deployment_id: Id, hours: Annotated[int, Query(ge=1, le=24 * 90)] = 24
) -> Listing[HourAnswer]:
    """Count the calls of each hour that had some: requests, errors, tokens, latency."""
    with db.transaction() as session:
        row = service.get(session, principal=principal, deployment_id=deployment_id)
        return Listing(data=calls.usage_by_hour(session, row.id, db.now() - timedelta(hours=hours)), next=None)
