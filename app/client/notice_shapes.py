"""What the server answers about notices."""

from datetime import datetime

from .shapes import Shape


class NoticeDeliveryInfo(Shape):
    """A notice on its way by e-mail or to a service. `due_at` is None once it was delivered or given up."""

    channel: str
    service: str | None
    num_tries: int
    delivered_at: datetime | None
    error: str | None
    failed_at: datetime | None
    due_at: datetime | None


class UserNoticeInfo(Shape):
    """Something that you are notified of."""

    id: str
    event: str
    title: str
    text: str
    job_id: str | None
    created_at: datetime
    read_at: datetime | None
    deliveries: list[NoticeDeliveryInfo]


class UnreadInfo(Shape):
    """How many notices are unread."""

    unread: int


class NoticeServiceInfo(Shape):
    """A messaging service that an owner is notified through."""

    id: str
    name: str
    scheme: str
    created_at: datetime
    error: str | None
    failed_at: datetime | None


class NoticeSettingsInfo(Shape):
    """How you are notified: by event, the channels."""

    channels: dict[str, list[str]]
    events: list[str]
    offered_channels: list[str]
    language: str
    email: str | None
    pending_email: str | None
    email_error: str | None
    email_failed_at: datetime | None
    services: list[NoticeServiceInfo]
