"""HTML routes of conversations: the list beside a chat, and a conversation that somebody shared."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.conversations import service
from app.conversations.api import Search
from app.core import db
from app.web.auth import Reader
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import ShortText

router = APIRouter()

ShareKey = Annotated[str, Path(max_length=64, pattern="^[0-9A-Za-z_-]+$")]


@router.get("/conversations")
def list_conversations(
    request: Request, principal: Reader, q: Search = "", after: After = None, current: ShortText = ""
) -> Response:
    """The entries of the list beside a chat. `current` is the ID of the conversation that is open."""
    with db.transaction() as session:
        rows, cursor = service.list_conversations(session, principal=principal, search=q, after=after)
        excerpts = service.excerpts(session, rows, q)
    return page(
        request,
        "conversations/_list.html",
        principal=principal,
        conversations=rows,
        excerpts=excerpts,
        cursor=cursor,
        search=q,
        current=current,
    )


@router.get("/shared/{key}")
def show_shared(request: Request, principal: Reader, key: ShareKey) -> Response:
    """A shared conversation, read-only, for everyone who is logged in."""
    with db.transaction() as session:
        row = service.get_shared(session, key)
        messages = service.messages(session, row.id, with_tokens=True)
    branches = [service.branch(messages, column.leaf_id) for column in row.columns]
    return page(
        request,
        "conversations/shared.html",
        principal=principal,
        conversation=row,
        branches=[path for path in branches if path]
        or [service.branch(messages, messages[-1].id if messages else None)],
    )
