"""The table of the audit log, without logic."""

from datetime import datetime

from sqlalchemy import Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.model_base import Base, new_id

MAX_NAME = 80  # characters of the name of a user
MAX_TEXT = 200  # characters of a subject and of a detail
MAX_ADDRESS = 64


class AuditEntry(Base):
    """An action. Append-only, written in the transaction of the action, and without foreign keys: it outlives its rows.

    `num_times` is above 1 only for failed logins, which are counted (app/core/audit_log.py); `failure_key` is theirs.
    """

    __tablename__ = "audit_entry"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    user_id: Mapped[str | None] = mapped_column(String(64))  # None for whoever is not logged in, and for commands
    user_name: Mapped[str] = mapped_column(String(MAX_NAME), server_default="")  # as it was then
    address: Mapped[str] = mapped_column(String(MAX_ADDRESS), server_default="")  # the client's; empty for commands
    action: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[str | None] = mapped_column(String(64))  # the row that it was done to
    subject: Mapped[str] = mapped_column(String(MAX_TEXT), server_default="")  # the name of that row, as it was then
    detail: Mapped[str] = mapped_column(String(MAX_TEXT), server_default="")
    num_times: Mapped[int] = mapped_column(server_default="1")
    failure_key: Mapped[str | None] = mapped_column(String(80), unique=True)

    __table_args__ = (Index(None, "action", "id"),)
