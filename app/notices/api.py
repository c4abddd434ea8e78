"""JSON routes of notices."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.core import db
from app.core.paging import Listing
from app.notices import email_addresses, schemas, service, services
from app.notices.schemas import (
    EmailCodeRequest,
    EmailRequest,
    NoticeServiceAnswer,
    NoticeServiceRequest,
    NoticeSettingsAnswer,
    NoticeSettingsRequest,
    UnreadAnswer,
    UserNoticeAnswer,
)
from app.notices.sending import SENDING
from app.web.auth import OwnAccount, Owner, Reader
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors
from app.web.unread import count_unread

router = APIRouter(route_class=ApiRoute, tags=["notices"])


@router.get("/notices")
def list_notices(
    principal: Reader,
    unread: Annotated[bool, Query(description="Only those that are unread.")] = False,
    limit: Limit = 50,
    after: After = None,
) -> Listing[UserNoticeAnswer]:
    """List your notices, newest first. They are kept for 90 days."""
    with db.transaction() as session:
        rows, cursor = service.list_notices(session, principal=principal, is_unread=unread, limit=limit, after=after)
        return Listing(data=schemas.notice_answers(session, rows), next=cursor)


@router.get("/notices/unread")
def count_unread_notices(principal: Reader) -> UnreadAnswer:
    """How many of your notices are unread."""
    with db.transaction() as session:
        return UnreadAnswer(unread=count_unread(session, principal.user_id))


@router.post("/notices/read", status_code=204)
def mark_notices_read(principal: OwnAccount) -> Response:
    """Mark all your notices as read."""
    with db.transaction() as session:
        service.mark_all_read(session, principal=principal)
    return Response(status_code=204)


@router.post("/notices/{notice_id}/read")
def mark_notice_read(principal: OwnAccount, notice_id: Id) -> UserNoticeAnswer:
    """Mark a notice as read."""
    with db.transaction() as session:
        notice = service.mark_read(session, principal=principal, notice_id=notice_id)
        return schemas.notice_answers(session, [notice])[0]


@router.get("/notice-settings")
def get_notice_settings(principal: Reader) -> NoticeSettingsAnswer:
    """Get how you are notified."""
    with db.transaction() as session:
        return schemas.settings_answer(session, principal)


@router.patch("/notice-settings", responses=errors("event_unknown", "channel_unknown", "language_unknown"))
def change_notice_settings(
    request: Request, principal: OwnAccount, body: NoticeSettingsRequest
) -> NoticeSettingsAnswer:
    """Choose through which channels you are notified of which events."""
    with db.transaction() as session:
        panel_url = str(request.base_url).rstrip("/")
        service.choose(session, principal=principal, panel_url=panel_url, **body.model_dump())
        return schemas.settings_answer(session, principal)


@router.put(
    "/notice-settings/email", responses=errors("email_invalid", "email_unconfigured", "email_soon", "email_failed")
)
@SENDING
def set_notice_email(request: Request, principal: OwnAccount, body: EmailRequest) -> NoticeSettingsAnswer:
    """Send a link to an address. Once it is opened, or its code is sent here, you are notified at the address."""
    email_addresses.ask(principal, str(request.base_url).rstrip("/"), body.address)
    with db.transaction() as session:
        return schemas.settings_answer(session, principal)


@router.post("/notice-settings/email/confirm", responses=errors("email_code_wrong"))
def confirm_notice_email(principal: OwnAccount, body: EmailCodeRequest) -> NoticeSettingsAnswer:
    """Confirm an address by the code of the link that was sent there."""
    with db.transaction() as session:
        email_addresses.confirm(session, code=body.code, user_id=principal.user_id)
        return schemas.settings_answer(session, principal)


@router.post("/notice-settings/email/test", status_code=204, responses=errors("email_missing", "email_failed"))
@SENDING
def send_test_email(principal: OwnAccount) -> Response:
    """Send a message to your address now."""
    email_addresses.send_test(principal)
    return Response(status_code=204)


@router.delete("/notice-settings/email", status_code=204)
def remove_notice_email(principal: OwnAccount) -> Response:
    """Notify you by e-mail no more, and forget the address."""
    with db.transaction() as session:
        email_addresses.remove(session, principal=principal)
    return Response(status_code=204)


SERVICE_ERRORS = (
    "apprise_missing",
    "service_failed",
    "service_local",
    "service_private",
    "service_unknown",
    "services_many",
)


@router.post(
    "/notice-settings/services",
    status_code=201,
    responses=errors("name_missing", "name_too_long", *SERVICE_ERRORS),
)
@SENDING
def add_notice_service(request: Request, principal: Owner, body: NoticeServiceRequest) -> NoticeServiceAnswer:
    """Notify you through a messaging service, too, by its Apprise URL. Nothing is sent yet."""
    row = services.add(principal, str(request.base_url).rstrip("/"), name=body.name, url=body.url)
    return schemas.service_answer(row)


@router.post("/notice-settings/services/{service_id}/test", status_code=204, responses=errors("service_failed"))
@SENDING
def test_notice_service(principal: Owner, service_id: Id) -> Response:
    """Send a message to a service now."""
    services.send_test(principal, service_id)
    return Response(status_code=204)


@router.delete("/notice-settings/services/{service_id}", status_code=204)
def remove_notice_service(principal: Owner, service_id: Id) -> Response:
    """Notify you through a service no more, and forget its URL."""
    with db.transaction() as session:
        services.remove(session, principal=principal, service_id=service_id)
    return Response(status_code=204)
