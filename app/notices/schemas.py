"""Request and response bodies of notices."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.notice_models import NoticeDelivery, NoticeService, UserNotice
from app.core.principal import Principal
from app.notices import delivery_errors, events, service, services


class NoticeDeliveryAnswer(BaseModel):
    """A notice on its way out of the panel."""

    channel: Literal["email", "service"]
    service: str | None = Field(description="The name of the service; null for e-mail.")
    num_tries: int
    delivered_at: datetime | None
    error: str | None = Field(description="Why the last try failed.")
    failed_at: datetime | None = Field(description="When a try failed last.")
    due_at: datetime | None = Field(description="When it is tried next; null once it was delivered or given up.")


class UserNoticeAnswer(BaseModel):
    """Something that you are notified of."""

    id: str
    event: str
    title: str = Field(description="In the language of the request, like the text.")
    text: str
    job_id: str | None
    created_at: datetime
    read_at: datetime | None
    deliveries: list[NoticeDeliveryAnswer]


class UnreadAnswer(BaseModel):
    """How many notices are unread."""

    unread: int


class NoticeServiceAnswer(BaseModel):
    """A messaging service that you are notified through. Its URL is never shown again."""

    id: str
    name: str
    scheme: str = Field(description="Of its Apprise URL, such as discord.")
    created_at: datetime
    error: str | None = Field(description="Why the last notice could not be sent; null if it could.")
    failed_at: datetime | None


class NoticeServiceRequest(BaseModel):
    """A messaging service to notify you through."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "Team", "url": "discord://WEBHOOK_ID/TOKEN"}]}
    )

    name: str = Field(max_length=200)
    url: str = Field(max_length=4000, description="An Apprise URL.")


class NoticeSettingsAnswer(BaseModel):
    """How you are notified."""

    channels: dict[str, list[str]] = Field(description="By event, the channels that you are notified through.")
    events: list[str] = Field(description="The events that concern you.")
    offered_channels: list[str] = Field(description="The channels that there are for you.")
    language: str = Field(description="Of what is delivered.")
    email: str | None = Field(description="The address that you have confirmed.")
    pending_email: str | None = Field(description="An address that you have not confirmed yet.")
    email_error: str | None = Field(description="Why the last e-mail could not be sent; null if it could.")
    email_failed_at: datetime | None
    services: list[NoticeServiceAnswer] = Field(description="Those of an owner.")


class EmailRequest(BaseModel):
    """An address to notify you at."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"address": "alice@example.com"}]})

    address: str = Field(max_length=1000)


class EmailCodeRequest(BaseModel):
    """The code of the link that was sent to an address."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"code": "..."}]})

    code: str = Field(max_length=200)


class NoticeSettingsRequest(BaseModel):
    """What is to change; fields and events that are left out stay."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"channels": {"job_failed": ["page", "browser"]}}]}
    )

    channels: dict[str, list[str]] | None = Field(None, description="By event, the channels that you want.")
    language: str | None = Field(None, description="Of what is delivered: en or zh-CN.")


def delivery_answer(delivery: NoticeDelivery, service_row: NoticeService | None) -> NoticeDeliveryAnswer:
    """The response for a delivery."""
    return NoticeDeliveryAnswer.model_validate(
        {
            "channel": delivery.channel,
            "service": service_row.name if service_row is not None else None,
            "num_tries": delivery.num_tries,
            "delivered_at": delivery.delivered_at,
            "error": delivery_errors.sentence(delivery.error) if delivery.error is not None else None,
            "failed_at": delivery.failed_at,
            "due_at": delivery.due_at,
        }
    )


def notice_answers(session: Session, notices: list[UserNotice]) -> list[UserNoticeAnswer]:
    """The responses for notices, with their deliveries."""
    deliveries: dict[str, list[NoticeDeliveryAnswer]] = {notice.id: [] for notice in notices}
    for delivery, service_row in service.deliveries_of(session, list(deliveries)):
        deliveries[delivery.notice_id].append(delivery_answer(delivery, service_row))
    return [notice_answer(notice, deliveries[notice.id]) for notice in notices]


def notice_answer(notice: UserNotice, deliveries: list[NoticeDeliveryAnswer]) -> UserNoticeAnswer:
    """The response for a notice."""
    described = events.describe(notice.event, notice.values)
    return UserNoticeAnswer(
        id=notice.id,
        event=notice.event,
        title=described.title,
        text=described.text,
        job_id=notice.job_id,
        created_at=notice.created_at,
        read_at=notice.read_at,
        deliveries=deliveries,
    )


def settings_answer(session: Session, principal: Principal) -> NoticeSettingsAnswer:
    """The response for the choices of a user."""
    row = service.stored_settings(session, principal.user_id)
    last = service.last_email(session, principal.user_id)
    event_names, offered = service.events_for(principal), service.channels_for(principal)
    return NoticeSettingsAnswer(
        channels={
            event: [channel for channel in offered if f"{event} {channel}" not in row.muted] for event in event_names
        },
        events=event_names,
        offered_channels=offered,
        language=row.language,
        email=row.email,
        pending_email=row.pending_email,
        email_error=delivery_errors.sentence(last.error) if last is not None and last.error is not None else None,
        email_failed_at=last.failed_at if last is not None and last.error is not None else None,
        services=_service_answers(session, principal.user_id),
    )


def _service_answers(session: Session, user_id: str) -> list[NoticeServiceAnswer]:
    last = services.last_deliveries(session, user_id)
    return [service_answer(row, last.get(row.id)) for row in service.services_of(session, user_id)]


def service_answer(row: NoticeService, last: NoticeDelivery | None = None) -> NoticeServiceAnswer:
    """The response for a service, with the last delivery to it."""
    code = last.error if last is not None else None
    return NoticeServiceAnswer(
        id=row.id,
        name=row.name,
        scheme=row.scheme,
        created_at=row.created_at,
        error=delivery_errors.sentence(code) if code is not None else None,
        failed_at=last.failed_at if last is not None and code is not None else None,
    )
