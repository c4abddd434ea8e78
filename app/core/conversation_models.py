"""The tables of conversations, without logic."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.account_models import User
from app.core.json_shapes import AnswerSettings, ConversationColumn
from app.core.model_base import Base, new_id, one_of

FINISH_REASONS = ("stop", "length", "cancelled", "edited")


class Conversation(Base):
    """A chat of a user with one to four models side by side. Its messages form a tree."""

    __tablename__ = "conversation"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    activity_id: Mapped[str] = mapped_column(default=new_id)  # made at its last change: lists are sorted by it
    title: Mapped[str] = mapped_column(server_default="")
    system_prompt: Mapped[str] = mapped_column(server_default="")  # of the next answers
    columns: Mapped[list[ConversationColumn]] = mapped_column(server_default="[]")
    share_key: Mapped[str | None] = mapped_column(unique=True)  # while everyone who is logged in may read it
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_conversation_owner_id_activity_id", "owner_id", "activity_id"),)


class ConversationMessage(Base):
    """A turn of a conversation. Messages with the same parent are alternatives: edits, or other answers."""

    __tablename__ = "conversation_message"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversation.id", ondelete="CASCADE"), index=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("conversation_message.id", ondelete="CASCADE"), index=True)
    role: Mapped[str]
    content: Mapped[str]
    model_id: Mapped[str | None]  # of an answer: the checkpoint or base model, which may have been deleted since
    model_name: Mapped[str | None]
    settings: Mapped[AnswerSettings] = mapped_column(server_default="{}")
    seed: Mapped[int | None]
    finish_reason: Mapped[str | None]  # edited: its text was written by hand
    num_tokens: Mapped[int | None]
    tokens_per_second: Mapped[float | None]
    # JSON of app/conversations/schemas.py's Pieces, or empty
    tokens: Mapped[str] = mapped_column(server_default="", deferred=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint(one_of("role", ("user", "assistant")), name="role"),
        CheckConstraint(one_of("finish_reason", FINISH_REASONS), name="finish_reason"),
    )
