"""JSON route of scores side by side. Evaluations are started and read as background tasks."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.core import db
from app.evaluations import schemas, service
from app.evaluations.schemas import ScoreComparisons
from app.web.auth import Reader
from app.web.idempotency import ApiRoute
from app.web.paging import After, Search

router = APIRouter(route_class=ApiRoute, tags=["tasks"])


@router.get("/evaluations")
def list_comparisons(
    principal: Reader,
    q: Search = "",
    limit: Annotated[
        int, Query(ge=1, le=service.MAX_TASKS, description="Maximum number of evaluations.")
    ] = service.MAX_TASKS,
    after: After = None,
) -> ScoreComparisons:
    """Compare the scores of your newest evaluations, by corpus and settings: all, or those of models and corpora with a
    text in their name.
    """
    with db.transaction() as session:
        rows, cursor = service.comparisons(session, principal=principal, search=q, limit=limit, after=after)
        return ScoreComparisons(data=[schemas.comparison_answer(row) for row in rows], next=cursor)
