"""The form that shares something, on the pages of what can be shared."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse

from app.core import db, sharing
from app.core.errors import PanelError
from app.sharing import service
from app.web.auth import Submitter
from app.web.parameters import Id

router = APIRouter()
Name = Annotated[str, Form(max_length=1_000)]


@router.post("/shares/{shared_id}")
def change_sharing(
    principal: Submitter, shared_id: Id, add: Name = "", remove: Name = "", everyone: Name = ""
) -> Response:
    """Share with one user more or less, or with everyone (`on`) or no longer (`off`), and return to the page."""
    query = ""
    with db.transaction() as session:
        row = service.find_own(session, principal=principal, row_id=shared_id)
        before = sharing.get(session, row)
        users = [name for name in [*before.users, add] if name and name != remove]
        is_for_all = everyone == "on" if everyone else before.everyone
        try:
            sharing.change(session, principal, row, everyone=is_for_all, users=users)
        except PanelError as error:
            query = f"?{urlencode({'sharing_error': error.message})}"
        address = f"{service.ADDRESSES[type(row)]}/{shared_id}{query}"
    return RedirectResponse(f"{address}#sharing", status_code=303)
