"""The tables of notices, without logic: what users are told, how they want to be told, and what is to be delivered."""

from datetime import datetime

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.account_models import User
from app.core.json_shapes import MessageValues
from app.core.model_base import Base, new_id, one_of
from app.core.models import Job

DELIVERED_CHANNELS = ("email", "service")


class NoticeSettings(Base):
    """How a user wants to be notified. A user without a row has the defaults."""

    __tablename__ = "notice_settings"

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    language: Mapped[str] = mapped_column(server_default="en")  # of what is delivered
    panel_url: Mapped[str] = mapped_column(server_default="")  # where the user's browser reaches the panel
    muted: Mapped[list[str]] = mapped_column(server_default="[]")  # "event channel", of what is not wanted
    email: Mapped[str | None]  # confirmed
    pending_email: Mapped[str | None]  # to be confirmed by a code, of which only the hash is stored
    code_sha256: Mapped[str | None] = mapped_column(unique=True)
    code_expires_at: Mapped[datetime | None]
    unsubscribe_code: Mapped[str | None] = mapped_column(unique=True)  # of the link in every e-mail


class NoticeService(Base):
    """A messaging service that notices of an owner are sent to, by an Apprise URL, which contains its secrets."""

    __tablename__ = "notice_service"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    name: Mapped[str]
    scheme: Mapped[str]  # of the URL, such as discord
    url: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UserNotice(Base):
    """Something that a user is notified of."""

    __tablename__ = "user_notice"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    event: Mapped[str]  # a key of EVENTS in app/notices/events.py
    job_id: Mapped[str | None] = mapped_column(ForeignKey(Job.id, ondelete="SET NULL"), index=True)
    values: Mapped[MessageValues] = mapped_column(server_default="{}")
    is_listed: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    is_for_browser: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    read_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_user_notice_user_id_id", "user_id", "id"),
        Index("ix_user_notice_unread", "user_id", postgresql_where=text("is_listed AND read_at IS NULL")),
    )


class NoticeDelivery(Base):
    """A notice on its way by e-mail or to a service. `due_at` is None once it was delivered or given up."""

    __tablename__ = "notice_delivery"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    notice_id: Mapped[str] = mapped_column(ForeignKey(UserNotice.id, ondelete="CASCADE"), index=True)
    channel: Mapped[str]
    service_id: Mapped[str | None] = mapped_column(ForeignKey(NoticeService.id, ondelete="CASCADE"), index=True)
    num_tries: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]  # the last time
    error: Mapped[str | None]  # a code of app/notices/delivery_errors.py

    __table_args__ = (
        CheckConstraint(one_of("channel", DELIVERED_CHANNELS), name="channel"),
        Index("ix_notice_delivery_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )


class JobStall(Base):
    """A job that makes no progress, since when, and whether its owner was notified."""

    __tablename__ = "job_stall"

    job_id: Mapped[str] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    since: Mapped[datetime]
    noticed_at: Mapped[datetime | None]


class QuotaLevel(Base):
    """The level in percent of a quota (disk or gpu_hours) that a user has reached and was notified of."""

    __tablename__ = "quota_level"

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    quota: Mapped[str] = mapped_column(primary_key=True)
    percent: Mapped[int]
