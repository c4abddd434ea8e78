"""Operations on conversations: the only writer of their tables."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, undefer

from app.conversations.schemas import MAX_TITLE_LENGTH, ConversationColumnFields, MessageRequest, Pieces
from app.core import audit_log, paging
from app.core.conversation_models import Conversation, ConversationMessage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import AnswerSettings, ConversationColumn
from app.core.model_base import new_id
from app.core.names import check_text, checked_name, printable_text
from app.core.principal import Principal, new_secret, not_found, visible, visible_to

MAX_MESSAGES = 2_000  # of a conversation
MAX_TOKENS_LENGTH = 2_000_000  # of the tokens of a conversation, in characters: the newest ones are kept
_PIECES: TypeAdapter[Pieces] = TypeAdapter(Pieces)
EXCERPT_LENGTH = 60  # characters before and after the place that a search names


def create(
    session: Session,
    *,
    principal: Principal,
    title: str = "",
    system_prompt: str = "",
    columns: Sequence[ConversationColumnFields] = (),
) -> Conversation:
    """Create an empty conversation. Raises PanelError."""
    row = Conversation(owner_id=principal.user_id, columns=[])
    _change(row, set(), title or None, system_prompt, columns)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def get(session: Session, *, principal: Principal, conversation_id: str, for_update: bool = False) -> Conversation:
    """A conversation of the user's. Raises 404."""
    return visible(session, Conversation, conversation_id, principal=principal, for_update=for_update)


def messages(session: Session, conversation_id: str, *, with_tokens: bool = False) -> list[ConversationMessage]:
    """The messages of all branches, the oldest first; only `with_tokens` their tokens are loaded at once."""
    query = select(ConversationMessage).where(ConversationMessage.conversation_id == conversation_id)
    if with_tokens:
        query = query.options(undefer(ConversationMessage.tokens))
    return list(session.scalars(query.order_by(ConversationMessage.created_at, ConversationMessage.id)))


def list_conversations(
    session: Session, *, principal: Principal, search: str = "", limit: int = 50, after: str | None = None
) -> tuple[list[Conversation], str | None]:
    """The user's conversations, the last changed first, and the cursor of the next page.

    With `search`, those whose title or a message contains it, in upper or lower case.
    """
    query = select(Conversation).where(visible_to(Conversation.owner_id, principal))
    if search.strip():
        mentions = select(ConversationMessage.conversation_id).where(_contains(search))
        title = Conversation.title.icontains(search.strip(), autoescape=True)
        query = query.where(or_(title, Conversation.id.in_(mentions)))
    return paging.newest(session, query, Conversation.activity_id, limit, after)


def excerpts(session: Session, conversations: Sequence[Conversation], search: str) -> dict[str, str]:
    """By the ID of a conversation, the place in its first message that contains a text."""
    if not search.strip():
        return {}
    ids = [row.id for row in conversations]
    first = (
        select(ConversationMessage.conversation_id, ConversationMessage.content)
        .where(ConversationMessage.conversation_id.in_(ids), _contains(search))
        .ext(distinct_on(ConversationMessage.conversation_id))
        .order_by(ConversationMessage.conversation_id, ConversationMessage.id)
    )
    return {row.conversation_id: _excerpt(row.content, search.strip()) for row in session.execute(first)}


def _contains(search: str) -> Any:
    return ConversationMessage.content.icontains(search.strip(), autoescape=True)


def _excerpt(content: str, search: str) -> str:
    place = max(0, content.casefold().find(search.casefold()))
    start, end = max(0, place - EXCERPT_LENGTH), place + len(search) + EXCERPT_LENGTH
    text = " ".join(content[start:end].split())
    return ("…" if start else "") + text + ("…" if end < len(content) else "")


def change(
    session: Session,
    *,
    principal: Principal,
    conversation_id: str,
    title: str | None = None,
    system_prompt: str | None = None,
    columns: Sequence[ConversationColumnFields] | None = None,
) -> Conversation:
    """Rename a conversation, or set its system prompt or its columns. None: it stays. Raises PanelError."""
    row = get(session, principal=principal, conversation_id=conversation_id, for_update=True)
    ids = {message.id for message in messages(session, row.id)} if columns else set()
    _change(row, ids, title, system_prompt, columns)
    session.flush()
    return row


def _change(
    row: Conversation,
    message_ids: set[str],
    title: str | None,
    system_prompt: str | None,
    columns: Sequence[ConversationColumnFields] | None,
) -> None:
    if title is not None:
        row.title = checked_name(title, max_length=MAX_TITLE_LENGTH, field="title")
    if system_prompt is not None:
        check_text("system_prompt", system_prompt)
        row.system_prompt = system_prompt
    if columns is not None:
        for column in columns:
            if column.leaf_id is not None and column.leaf_id not in message_ids:
                message = _("This conversation has no message {id}.", id=column.leaf_id)
                raise bad_field("columns", "leaf_unknown", message)
        row.columns = [ConversationColumn(**column.model_dump()) for column in columns]


def remove(session: Session, *, principal: Principal, conversation_id: str) -> None:
    """Delete a conversation with all its branches. Raises 404."""
    session.delete(get(session, principal=principal, conversation_id=conversation_id, for_update=True))


# ---- messages -------------------------------------------------------------------------------------------------------


def add_message(
    session: Session, *, principal: Principal, conversation_id: str, message: MessageRequest
) -> ConversationMessage:
    """Add a message below its parent. Raises PanelError."""
    row = get(session, principal=principal, conversation_id=conversation_id, for_update=True)
    _check_parent(session, row, message)
    count = session.scalar(select(func.count()).where(ConversationMessage.conversation_id == row.id)) or 0
    if count >= MAX_MESSAGES:
        text = _("A conversation can have at most {max} messages. Start a new one.", max=MAX_MESSAGES)
        raise PanelError(409, "conversation_full", text)
    if message.role == "user":
        _check_question(message.content)
    if message.tokens:
        _check_tokens(message.tokens, message.content)
    values = message.model_dump(exclude={"settings", "content"})
    added = ConversationMessage(
        conversation_id=row.id,
        content=printable_text(message.content),
        settings=AnswerSettings(**message.settings.model_dump(exclude_unset=True)),
        **values,
    )
    session.add(added)
    row.title = row.title or _title(message.content)
    row.activity_id, row.updated_at = new_id(), func.now()
    session.flush()
    if message.tokens:
        _discard_old_tokens(session, row.id)
    return added


def _check_question(content: str) -> None:
    if not content.strip():
        raise bad_field("content", "content_empty", _("The question is empty. Write something."))
    check_text("content", content)


def _check_tokens(tokens: str, content: str) -> None:
    try:
        pieces = _PIECES.validate_json(tokens, strict=True)
    except ValidationError:
        message = _("tokens must be JSON of a list of pieces [text, tokens].")
        raise bad_field("tokens", "tokens_invalid", message) from None
    if "".join(text for text, _tokens in pieces) != content:
        raise bad_field("tokens", "tokens_invalid", _("The texts of the tokens differ from the content."))


def _discard_old_tokens(session: Session, conversation_id: str) -> None:
    """Keep the tokens of the newest answers, within MAX_TOKENS_LENGTH."""
    total = func.sum(func.length(ConversationMessage.tokens)).over(order_by=ConversationMessage.id.desc())
    own = select(ConversationMessage.id, total.label("total"))
    lengths = own.where(ConversationMessage.conversation_id == conversation_id).subquery()
    is_old = ConversationMessage.id.in_(select(lengths.c.id).where(lengths.c.total > MAX_TOKENS_LENGTH))
    session.execute(update(ConversationMessage).where(is_old).values(tokens=""))


def _check_parent(session: Session, row: Conversation, message: MessageRequest) -> None:
    """Raise PanelError if a question does not begin the conversation or follow an answer, or an answer a question."""
    parent_role = "assistant"
    if message.parent_id is not None:
        parent_role = _message(session, row, message.parent_id, "parent_id").role
    if parent_role == message.role:
        text = {
            "user": _("A question begins the conversation or follows an answer."),
            "assistant": _("An answer follows a question."),
        }
        raise bad_field("parent_id", "parent_invalid", text[message.role])


def _message(session: Session, row: Conversation, message_id: str, field: str) -> ConversationMessage:
    message = session.get(ConversationMessage, message_id)
    if message is None or message.conversation_id != row.id:
        raise bad_field(field, "leaf_unknown", _("This conversation has no message {id}.", id=message_id))
    return message


def _title(content: str) -> str:
    """The beginning of the first message, in one line."""
    text = "".join(character if character.isprintable() else " " for character in content)
    return " ".join(text.split())[:MAX_TITLE_LENGTH]


def remove_message(session: Session, *, principal: Principal, conversation_id: str, message_id: str) -> Conversation:
    """Delete a message and all that follows it; columns that showed that end before it. Raises 404."""
    row = get(session, principal=principal, conversation_id=conversation_id, for_update=True)
    message = session.get(ConversationMessage, message_id)
    if message is None or message.conversation_id != row.id:
        raise not_found()
    session.execute(delete(ConversationMessage).where(ConversationMessage.id == message_id))
    session.expire_all()
    left = {message.id for message in messages(session, row.id)}
    row.columns = [
        column if column.leaf_id in left else column.model_copy(update={"leaf_id": message.parent_id})
        for column in row.columns
    ]
    session.flush()
    return row


def branch(all_messages: Sequence[ConversationMessage], leaf_id: str | None) -> list[ConversationMessage]:
    """The messages from the first one to the leaf."""
    by_id = {message.id: message for message in all_messages}
    path: list[ConversationMessage] = []
    while leaf_id is not None and leaf_id in by_id:
        path.insert(0, by_id[leaf_id])
        leaf_id = path[0].parent_id
    return path


def training_record(
    session: Session, *, principal: Principal, conversation_id: str, leaf_id: str | None
) -> dict[str, Any]:
    """The branch that ends with a message, by default that of the first column, as a record of a chat corpus.

    It ends with its last answer.

    Raises PanelError: 404, or 422 for an unknown leaf or a branch without an answer.
    """
    row = get(session, principal=principal, conversation_id=conversation_id)
    if leaf_id is None:
        leaf_id = row.columns[0].leaf_id if row.columns else None
    else:
        _message(session, row, leaf_id, "leaf")
    path = branch(messages(session, row.id), leaf_id)
    if path and path[-1].role == "user":
        path.pop()
    if not path:
        raise bad_field("leaf", "record_empty", _("This branch has no answer yet. A training record needs one."))
    answered_under = path[-1].settings.system_prompt
    system_prompt = row.system_prompt if answered_under is None else answered_under
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return {"messages": system + [{"role": message.role, "content": message.content} for message in path]}


# ---- sharing --------------------------------------------------------------------------------------------------------


def share(session: Session, *, principal: Principal, conversation_id: str, shared: bool) -> Conversation:
    """Let everyone who is logged in read a conversation by its key, or no longer. The key stays while it is shared."""
    row = get(session, principal=principal, conversation_id=conversation_id, for_update=True)
    if shared != (row.share_key is not None):
        action: audit_log.Action = "conversation_shared" if shared else "conversation_unshared"
        audit_log.record(session, action, principal, subject=row.title, subject_id=row.id)
    if not shared:
        row.share_key = None
    elif row.share_key is None:
        row.share_key = new_secret()
    session.flush()
    return row


def get_shared(session: Session, key: str) -> Conversation:
    """The conversation that is shared under a key. Raises 404."""
    row = session.scalar(select(Conversation).where(Conversation.share_key == key))
    if row is None:
        raise not_found()
    return row
