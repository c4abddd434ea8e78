"""The page that looks inside a model. Its script asks the API."""

from fastapi import APIRouter, Request, Response

from app.core import db
from app.playground.inspection import service
from app.web.auth import Reader
from app.web.pages import page
from app.web.parameters import ShortText

router = APIRouter()


@router.get("/playground/inspect")
def show_inspection(request: Request, principal: Reader, checkpoint: ShortText | None = None) -> Response:
    """The page, with a model selected: the one in the query, else the newest."""
    with db.transaction() as session:
        groups, selected = service.list_models(session, principal=principal, wanted=checkpoint)
    return page(request, "inspection/index.html", principal=principal, groups=groups, selected=selected)
