"""JSON routes of presets of jobs."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core import db
from app.core.paging import Listing
from app.core.preset_models import JobPreset
from app.core.principal import Principal
from app.jobs import presets
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["jobs"])
EXAMPLE: dict[str, Any] = {"name": "Small", "spec": {"recipe": "tiny", "max_steps": 500}}


class JobPresetRequest(BaseModel):
    """Settings of jobs, and the name to save them under."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    name: str = Field(description="Its name, in place of an earlier preset of yours with that name.")
    spec: dict[str, Any] = Field(
        description="A partial TrainSpec. What belongs to one job alone is not saved: its name, corpora and their "
        "weights, and the checkpoint that it continues from."
    )
    everyone: bool = Field(False, description="Whether all users are offered it, too.")


class JobPresetAnswer(BaseModel):
    """A preset. Submit its `spec` with a name and corpora."""

    id: str
    name: str
    spec: dict[str, Any]
    everyone: bool = Field(description="Whether all users are offered it.")
    owner: str = Field(description="Name of the user who saved it.")
    own: bool = Field(description="Whether it is yours.")
    created_at: datetime


def _answers(session: Session, principal: Principal, rows: list[JobPreset]) -> list[JobPresetAnswer]:
    names = presets.owner_names(session, rows)
    return [
        JobPresetAnswer(
            id=row.id,
            name=row.name,
            spec=row.spec,
            everyone=row.is_for_everyone,
            owner=names[row.owner_id],
            own=row.owner_id == principal.user_id,
            created_at=row.created_at,
        )
        for row in rows
    ]


@router.get("/job-presets")
def list_job_presets(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[JobPresetAnswer]:
    """List your presets of jobs and those for everyone, newest first."""
    with db.transaction() as session:
        rows, cursor = presets.list_presets(session, principal=principal, limit=limit, after=after)
        return Listing(data=_answers(session, principal, rows), next=cursor)


@router.post(
    "/job-presets",
    status_code=201,
    responses=errors(
        *("spec_invalid", "model_unready", "presets_many", "name_missing", "name_too_long", "character_invalid")
    ),
)
def save_job_preset(principal: Submitter, body: JobPresetRequest) -> JobPresetAnswer:
    """Save settings of jobs under a name, in place of an earlier preset of yours with that name."""
    with db.transaction() as session:
        row = presets.save(session, principal=principal, name=body.name, spec=body.spec, is_for_everyone=body.everyone)
        return _answers(session, principal, [row])[0]


@router.get("/job-presets/{preset_id}")
def get_job_preset(principal: Reader, preset_id: Id) -> JobPresetAnswer:
    """Get a preset of jobs."""
    with db.transaction() as session:
        return _answers(session, principal, [presets.get(session, principal=principal, preset_id=preset_id)])[0]


@router.delete("/job-presets/{preset_id}", status_code=204, responses=errors("not_owner"))
def delete_job_preset(principal: Submitter, preset_id: Id) -> Response:
    """Delete a preset of jobs. Jobs that were submitted with it stay as they are."""
    with db.transaction() as session:
        presets.delete(session, principal=principal, preset_id=preset_id)
    return Response(status_code=204)
