"""The table of what users share, without logic."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.account_models import User
from app.core.model_base import Base, new_id


class Share(Base):
    """A row that its owner shares with a user, or, without one, with everyone. Written only by app/core/sharing.py.

    `subject_id` is the ID of a base model, tokenizer, job or checkpoint, or what the versions of a corpus have in
    common. It is no foreign key, as it may be of any of these tables.
    """

    __tablename__ = "share"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    subject_id: Mapped[str]
    user_id: Mapped[str | None] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("subject_id", "user_id"),
        Index("uq_share_everyone", "subject_id", unique=True, postgresql_where=text("user_id IS NULL")),
    )
