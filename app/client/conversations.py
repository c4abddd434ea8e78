"""Conversations with models, as the playground stores them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from .shapes import ConversationDetails, ConversationInfo, MessageInfo, RecordInfo
from .transport import Transport, address


class ConversationFields(TypedDict, total=False):
    """What can be set of a conversation. `columns` are the models side by side: model_id and leaf_id of each."""

    title: str
    system_prompt: str
    columns: Sequence[Mapping[str, str | None]]


class MessageFields(TypedDict, total=False):
    """What belongs to a message besides its role and content; all but the first say how an answer was generated."""

    parent_id: str | None
    model_id: str
    model_name: str
    settings: Mapping[str, Any]
    seed: int
    finish_reason: str
    num_tokens: int
    tokens_per_second: float
    tokens: str


class Conversations:
    """Your conversations: trees of messages, in which messages below one parent are alternatives."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, search: str = "", limit: int = 50) -> Iterator[ConversationInfo]:
        """Your conversations, the last changed first: all, or those that contain a text."""
        return self._transport.pages(ConversationInfo, "/conversations", q=search, limit=limit)

    def get(self, conversation_id: str) -> ConversationDetails:
        """A conversation with the messages of all its branches."""
        return self._transport.get(ConversationDetails, address("conversations", conversation_id))

    def create(self, **fields: Unpack[ConversationFields]) -> ConversationInfo:
        """Create an empty conversation."""
        return self._transport.post(ConversationInfo, "/conversations", {**fields})

    def change(self, conversation_id: str, **fields: Unpack[ConversationFields]) -> ConversationInfo:
        """Rename a conversation, or set its system prompt or the models side by side."""
        return self._transport.put(ConversationInfo, address("conversations", conversation_id), {**fields})

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation with all its branches."""
        self._transport.delete(address("conversations", conversation_id))

    def add_message(
        self, conversation_id: str, role: str, content: str, **fields: Unpack[MessageFields]
    ) -> MessageInfo:
        """Add a question (`user`) or an answer (`assistant`) below its parent."""
        body = {"role": role, "content": content, **fields}
        return self._transport.post(MessageInfo, address("conversations", conversation_id, "messages"), body)

    def delete_message(self, conversation_id: str, message_id: str) -> None:
        """Delete a message and everything that follows it."""
        self._transport.delete(address("conversations", conversation_id, "messages", message_id))

    def record(self, conversation_id: str, leaf_id: str | None = None) -> RecordInfo:
        """One branch as a training record: by default that of the first column, or the one that ends with a message."""
        return self._transport.get(RecordInfo, address("conversations", conversation_id, "record"), leaf=leaf_id)

    def share(self, conversation_id: str) -> ConversationInfo:
        """Let everyone who is logged in to the server read a conversation at /shared/KEY."""
        return self._transport.post(ConversationInfo, address("conversations", conversation_id, "share"))

    def unshare(self, conversation_id: str) -> ConversationInfo:
        """Make a conversation private again."""
        return self._transport.post(ConversationInfo, address("conversations", conversation_id, "unshare"))
