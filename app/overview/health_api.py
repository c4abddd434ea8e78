"""JSON routes of the state of Athanor's parts, and of the cache that jobs share."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.jobs.scheduling import cached_data
from app.overview.health import Kind, State, list_parts
from app.web.auth import EveryonesManager, Reader
from app.web.idempotency import ApiRoute
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["nodes"])


class PartAnswer(BaseModel):
    """The state of one part of Athanor. Texts are in the language of the request."""

    kind: Kind
    name: str
    state: State = Field(description="`wait`: slower or smaller, but nothing is lost.")
    description: str
    at: datetime | None = Field(description="When it last reported, if it reports.")
    remedy: str | None = Field(description="What to do if it is not good.")
    unneeded_bytes: int = Field(description="What can be freed at once: only the cache has such.")


class HealthAnswer(BaseModel):
    """The state of all parts."""

    parts: list[PartAnswer]


@router.get("/health")
def read_health(principal: Reader) -> HealthAnswer:
    """Return the state of each part of Athanor, and what to do if one fails."""
    parts = [PartAnswer.model_validate(part, from_attributes=True) for part in list_parts(principal)]
    return HealthAnswer(parts=parts)


@router.delete("/cache", status_code=204, responses=errors("role_missing"))
def delete_unneeded_cache(principal: EveryonesManager) -> Response:
    """Delete the cached tokens and vocabularies that no unfinished job or task needs."""
    cached_data.delete_unneeded()
    return Response(status_code=204)
