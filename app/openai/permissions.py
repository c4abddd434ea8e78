"""Permissions of checkpoints under /v1. They share models between projects, of which there is one here: none exist."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.core import db
from app.core.i18n import _
from app.core.principal import Principal, not_found
from app.openai import models, objects
from app.openai.generations import unsupported
from app.web.auth import Reader, Submitter
from app.web.json_body import StrictRoute

router = APIRouter(route_class=StrictRoute, prefix="/fine_tuning/checkpoints")


class PermissionRequest(BaseModel):
    """The projects that are to use a checkpoint."""

    project_ids: list[str] = Field(max_length=100)


@router.get("/{name:path}/permissions")
def list_permissions(principal: Reader, name: str) -> dict[str, Any]:
    """List the permissions of a checkpoint of the user's: none."""
    _require(principal, name)
    return objects.page([], has_more=False)


@router.post("/{name:path}/permissions")
def create_permissions(principal: Submitter, name: str, body: PermissionRequest) -> dict[str, Any]:
    """Refuse to share a checkpoint with projects."""
    _require(principal, name)
    message = _("There are no projects here. Deploy the model to let other users call it.")
    raise unsupported("project_ids", message)


@router.delete("/{name:path}/permissions/{permission_id}")
def delete_permission(principal: Submitter, name: str, permission_id: str) -> dict[str, Any]:
    """No permission has this ID."""
    _require(principal, name)
    raise not_found()


def _require(principal: Principal, name: str) -> None:
    """Raise PanelError (404) unless the user has the model."""
    with db.transaction() as session:
        models.resolve(session, principal=principal, name=name)
