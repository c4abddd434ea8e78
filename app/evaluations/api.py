"""JSON route of scores side by side. Evaluations are started and read as background tasks."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.core import db
from app.evaluations import schemas, service
from app.evaluations.schemas import ScoreComparisons
from app.web.auth import Reader
from app.web.idempotency import ApiRoute
from app.web.paging import After

router = APIRouter(route_class=ApiRoute, tags=["tasks"])


@router.get("/evaluations")
def list_comparisons(
    principal: Reader,
    q: Annotated[
        str, Query(max_length=200, description="A part of the name of a model or corpus, in upper or lower case.")
    ] = "",
    limit: Annotated[
        int, Query(ge=1, le=service.MAX_TASKS, description="Maximum number of evaluations.")
    ] = service.MAX_TASKS,
    after: After = None,
) -> ScoreComparisons:
    """Compare the scores of your newest evaluations, by corpus and settings."""
    with db.transaction() as session:
        search = q.replace("\0", "").strip()
        rows, cursor = service.comparisons(session, principal=principal, search=search, limit=limit, after=after)
        return ScoreComparisons(data=[schemas.comparison_answer(row) for row in rows], next=cursor)
