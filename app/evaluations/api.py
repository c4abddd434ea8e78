"""JSON route of scores side by side. Evaluations are started and read as background tasks."""

from fastapi import APIRouter

from app.core import db
from app.evaluations import schemas, service
from app.evaluations.schemas import ScoreComparisons
from app.web.auth import Reader
from app.web.idempotency import ApiRoute

router = APIRouter(route_class=ApiRoute, tags=["tasks"])


@router.get("/evaluations")
def list_comparisons(principal: Reader) -> ScoreComparisons:
    """Compare the scores of your newest 500 evaluations, by corpus and settings."""
    with db.transaction() as session:
        rows = service.comparisons(session, principal=principal)
        return ScoreComparisons(data=[schemas.comparison_answer(row) for row in rows])
