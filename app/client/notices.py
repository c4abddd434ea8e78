"""What you are notified of, and how."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .notice_shapes import NoticeServiceInfo, NoticeSettingsInfo, UnreadInfo, UserNoticeInfo
from .transport import Transport, address


class Notices:
    """Your notices, and your choices."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, unread: bool = False, limit: int = 50) -> Iterator[UserNoticeInfo]:
        """Your notices, newest first: all, or those that are unread."""
        return self._transport.pages(UserNoticeInfo, "/notices", unread=unread or None, limit=limit)

    def count_unread(self) -> int:
        """How many of your notices are unread."""
        return self._transport.get(UnreadInfo, "/notices/unread").unread

    def mark_read(self, notice_id: str) -> UserNoticeInfo:
        """Mark a notice as read."""
        return self._transport.post(UserNoticeInfo, address("notices", notice_id, "read"))

    def mark_all_read(self) -> None:
        """Mark all your notices as read."""
        self._transport.command("/notices/read")

    def settings(self) -> NoticeSettingsInfo:
        """How you are notified."""
        return self._transport.get(NoticeSettingsInfo, "/notice-settings")

    def change_settings(
        self, channels: Mapping[str, Sequence[str]] | None = None, language: str | None = None
    ) -> NoticeSettingsInfo:
        """Choose the channels of events, and the language of what is delivered; what is left out stays."""
        changes: dict[str, Any] = {"channels": channels, "language": language}
        body = {field: value for field, value in changes.items() if value is not None}
        return self._transport.patch(NoticeSettingsInfo, "/notice-settings", body)

    def set_email(self, email_address: str) -> NoticeSettingsInfo:
        """Have a link sent to an address, whose code `confirm_email` takes."""
        return self._transport.put(NoticeSettingsInfo, "/notice-settings/email", {"address": email_address})

    def confirm_email(self, code: str) -> NoticeSettingsInfo:
        """Use the address of a link from now on."""
        return self._transport.post(NoticeSettingsInfo, "/notice-settings/email/confirm", {"code": code})

    def send_test_email(self) -> None:
        """Have a message sent to your address now."""
        self._transport.command("/notice-settings/email/test")

    def remove_email(self) -> None:
        """Have your address forgotten."""
        self._transport.delete("/notice-settings/email")

    def add_service(self, name: str, url: str) -> NoticeServiceInfo:
        """Be notified through a messaging service, too, by its Apprise URL. For owners."""
        return self._transport.post(NoticeServiceInfo, "/notice-settings/services", {"name": name, "url": url})

    def test_service(self, service_id: str) -> None:
        """Have a message sent to a service now."""
        self._transport.command(address("notice-settings", "services", service_id, "test"))

    def remove_service(self, service_id: str) -> None:
        """Be notified through a service no more."""
        self._transport.delete(address("notice-settings", "services", service_id))
