"""The page of what users and their running jobs use."""

from fastapi import APIRouter, Request, Response

from app.core import db
from app.overview import usage
from app.web.auth import Reader
from app.web.pages import page
from app.web.paging import After

router = APIRouter()


@router.get("/usage")
def show_usage(request: Request, principal: Reader, after: After = None) -> Response:
    """What the user uses; for admins and owners, what all users do."""
    with db.transaction() as session:
        users, cursor = usage.list_use(session, principal=principal, after=after)
    return page(request, "nodes/usage.html", principal=principal, users=users, next=cursor)
