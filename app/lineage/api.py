"""JSON route of lineage."""

from fastapi import APIRouter

from app.core import db
from app.lineage import service
from app.lineage.schemas import LineageAnswer
from app.web.auth import Reader
from app.web.idempotency import ApiRoute
from app.web.parameters import Id

router = APIRouter(route_class=ApiRoute, tags=["lineage"])


@router.get("/lineage/{item_id}")
def get_lineage(principal: Reader, item_id: Id) -> LineageAnswer:
    """What a corpus, tokenizer, model, job, checkpoint, evaluation, export or deployment comes from, and what came of
    it.
    """
    with db.transaction() as session:
        return service.lineage(session, principal=principal, item_id=item_id)
