"""JSON routes of mappings of columns that are saved under a name."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import Field

from app.core import db
from app.core.paging import Listing
from app.corpora import mappings
from app.corpora.schemas import MappingAnswer
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id

router = APIRouter(route_class=ApiRoute, tags=["corpora"])


class NamedMappingAnswer(MappingAnswer):
    """A mapping of columns by hand that is saved under a name."""

    id: str
    created_at: datetime = Field(description="When the name was first used.")


@router.get("/column-mappings")
def list_column_mappings(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[NamedMappingAnswer]:
    """List your saved mappings of columns, newest first. Parse a corpus with one by its name."""
    with db.transaction() as session:
        rows, cursor = mappings.list_mappings(session, principal=principal, limit=limit, after=after)
        answers = [NamedMappingAnswer(id=row.id, created_at=row.created_at, **row.mapping.model_dump()) for row in rows]
        return Listing(data=answers, next=cursor)


@router.delete("/column-mappings/{mapping_id}", status_code=204)
def delete_column_mapping(principal: Submitter, mapping_id: Id) -> Response:
    """Delete a saved mapping of columns. Corpora that were read with it stay as they are."""
    with db.transaction() as session:
        mappings.delete(session, principal=principal, mapping_id=mapping_id)
    return Response(status_code=204)
