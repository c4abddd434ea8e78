"""JSON routes of conversations."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.conversations import schemas, service
from app.conversations.schemas import (
    ConversationAnswer,
    ConversationChange,
    ConversationDetail,
    ConversationRequest,
    MessageAnswer,
    MessageRequest,
    TrainingRecord,
)
from app.core import db
from app.core.paging import Listing
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["conversations"])

Search = Annotated[
    str, Query(max_length=200, description="Only conversations whose title or a message contains this text.")
]
_TITLE_ERRORS = ("name_missing", "name_too_long", "character_invalid", "leaf_unknown")


@router.get("/conversations")
def list_conversations(
    principal: Reader, q: Search = "", limit: Limit = 50, after: After = None
) -> Listing[ConversationAnswer]:
    """List your conversations with models, the last changed first."""
    with db.transaction() as session:
        rows, cursor = service.list_conversations(session, principal=principal, search=q, limit=limit, after=after)
        excerpts = service.excerpts(session, rows, q)
    return Listing(data=[schemas.conversation_answer(row, excerpts.get(row.id)) for row in rows], next=cursor)


@router.post("/conversations", status_code=201, responses=errors(*_TITLE_ERRORS))
def create_conversation(principal: Submitter, body: ConversationRequest) -> ConversationAnswer:
    """Create an empty conversation."""
    with db.transaction() as session:
        row = service.create(
            session,
            principal=principal,
            title=body.title,
            system_prompt=body.system_prompt,
            columns=body.columns,
        )
    return schemas.conversation_answer(row)


@router.get("/conversations/{conversation_id}")
def get_conversation(principal: Reader, conversation_id: Id) -> ConversationDetail:
    """Get a conversation with the messages of all its branches."""
    with db.transaction() as session:
        row = service.get(session, principal=principal, conversation_id=conversation_id)
        return schemas.conversation_detail(row, service.messages(session, row.id, with_tokens=True))


@router.put("/conversations/{conversation_id}", responses=errors(*_TITLE_ERRORS))
def change_conversation(principal: Submitter, conversation_id: Id, body: ConversationChange) -> ConversationAnswer:
    """Rename a conversation, or set its system prompt or the models side by side."""
    with db.transaction() as session:
        row = service.change(
            session,
            principal=principal,
            conversation_id=conversation_id,
            title=body.title,
            system_prompt=body.system_prompt,
            columns=body.columns,
        )
    return schemas.conversation_answer(row)


@router.delete("/conversations/{conversation_id}", status_code=204)
def delete_conversation(principal: Submitter, conversation_id: Id) -> Response:
    """Delete a conversation with all its branches."""
    with db.transaction() as session:
        service.remove(session, principal=principal, conversation_id=conversation_id)
    return Response(status_code=204)


@router.post(
    "/conversations/{conversation_id}/messages",
    status_code=201,
    responses=errors(
        *("parent_invalid", "leaf_unknown", "conversation_full", "content_empty", "character_invalid"),
        "tokens_invalid",
    ),
)
def add_message(principal: Submitter, conversation_id: Id, body: MessageRequest) -> MessageAnswer:
    """Add a message below its parent. An edited question and another answer are further messages below one parent."""
    with db.transaction() as session:
        message = service.add_message(session, principal=principal, conversation_id=conversation_id, message=body)
        session.refresh(message)
        return MessageAnswer.model_validate(message)


@router.delete("/conversations/{conversation_id}/messages/{message_id}")
def delete_message(principal: Submitter, conversation_id: Id, message_id: Id) -> ConversationAnswer:
    """Delete a message and everything that follows it."""
    with db.transaction() as session:
        row = service.remove_message(
            session, principal=principal, conversation_id=conversation_id, message_id=message_id
        )
    return schemas.conversation_answer(row)


@router.get("/conversations/{conversation_id}/record", responses=errors("leaf_unknown", "record_empty"))
def get_training_record(
    principal: Reader,
    conversation_id: Id,
    leaf: Annotated[
        str | None, Query(max_length=32, description="ID of the branch's last message. Default: the first column's.")
    ] = None,
) -> TrainingRecord:
    """Get one branch as a training record: one line of a corpus of conversations (.jsonl)."""
    with db.transaction() as session:
        record = service.training_record(session, principal=principal, conversation_id=conversation_id, leaf_id=leaf)
    return TrainingRecord.model_validate(record)


@router.post("/conversations/{conversation_id}/share")
def share_conversation(principal: Submitter, conversation_id: Id) -> ConversationAnswer:
    """Let everyone who is logged in to this installation read the conversation at /shared/KEY."""
    with db.transaction() as session:
        row = service.share(session, principal=principal, conversation_id=conversation_id, shared=True)
    return schemas.conversation_answer(row)


@router.post("/conversations/{conversation_id}/unshare")
def unshare_conversation(principal: Submitter, conversation_id: Id) -> ConversationAnswer:
    """Make a conversation private again; its link no longer works."""
    with db.transaction() as session:
        row = service.share(session, principal=principal, conversation_id=conversation_id, shared=False)
    return schemas.conversation_answer(row)
