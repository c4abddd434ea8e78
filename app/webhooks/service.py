"""Operations on webhook endpoints: with delivery.py the only writer of both their tables."""

import base64
import json
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import addresses, paging
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.idempotency import RETRY_MEMORY
from app.core.model_base import new_id
from app.core.names import checked_name
from app.core.openai_models import WebhookDelivery, WebhookEndpoint
from app.core.principal import Principal, not_found, visible_to

EVENT_TYPES = tuple(f"fine_tuning.job.{state}" for state in ("succeeded", "failed", "cancelled"))
MAX_NAME_LENGTH = 120
MAX_ENDPOINTS = 20  # of a user
OLD_SECRET_LIFETIME = timedelta(days=1)


def create(
    session: Session,
    *,
    principal: Principal,
    name: str,
    url: str,
    event_types: Sequence[str],
    is_repeated: bool = False,
) -> WebhookEndpoint:
    """Add an endpoint. A request that `is_repeated` by a client which has no answer to it gets the one that it added.

    Raises PanelError for an address or event type that is not allowed, and for too many.
    """
    endpoint = WebhookEndpoint(owner_id=principal.user_id, secret=_new_secret())
    _assign(endpoint, name=name, url=url, event_types=event_types)
    earlier = _added_before(session, endpoint) if is_repeated else None
    if earlier is not None:
        return earlier
    own = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.owner_id == principal.user_id)
    if (session.scalar(own) or 0) >= MAX_ENDPOINTS:
        message = _("You have {limit} webhook endpoints, which is the limit. Delete one.", limit=MAX_ENDPOINTS)
        raise bad_field("url", "endpoints_many", message)
    session.add(endpoint)
    session.flush()
    return endpoint


def _added_before(session: Session, endpoint: WebhookEndpoint) -> WebhookEndpoint | None:
    """The endpoint that another request of this kind has just added."""
    fields = ("owner_id", "name", "url", "event_types")
    same = [getattr(WebhookEndpoint, field) == getattr(endpoint, field) for field in fields]
    recent = WebhookEndpoint.created_at > func.now() - RETRY_MEMORY
    return session.scalar(select(WebhookEndpoint).where(*same, recent).order_by(WebhookEndpoint.id.desc()).limit(1))


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _assign(endpoint: WebhookEndpoint, *, name: str | None, url: str | None, event_types: Sequence[str] | None) -> None:
    """Set what is not None. Raises PanelError."""
    if name is not None:
        endpoint.name = checked_name(name, max_length=MAX_NAME_LENGTH)
    if url is not None:
        addresses.check(url)
        endpoint.url = url
    if event_types is not None:
        endpoint.event_types = check_event_types(event_types)


def check_event_types(event_types: Sequence[str]) -> list[str]:
    """The event types without repetitions. Raises PanelError for one that does not exist here, and for none."""
    unknown = next((name for name in event_types if name not in EVENT_TYPES), None)
    if unknown is not None or not event_types:
        expected = ", ".join(EVENT_TYPES)
        raise bad_field("event_types", "event_type_unknown", _("Choose event types of: {expected}.", expected=expected))
    return list(dict.fromkeys(event_types))


def get(session: Session, *, principal: Principal, endpoint_id: str) -> WebhookEndpoint:
    """An endpoint of the user, locked. Raises 404."""
    own = (WebhookEndpoint.id == endpoint_id, visible_to(WebhookEndpoint.owner_id, principal))
    endpoint = session.scalar(select(WebhookEndpoint).where(*own).with_for_update())
    if endpoint is None:
        raise not_found()
    return endpoint


def list_endpoints(
    session: Session, *, principal: Principal, limit: int, after: str | None
) -> tuple[list[WebhookEndpoint], str | None]:
    """The endpoints of the user, newest first, and the cursor of the next page."""
    query = select(WebhookEndpoint).where(visible_to(WebhookEndpoint.owner_id, principal))
    return paging.newest(session, query, WebhookEndpoint.id, limit, after)


def update(
    session: Session,
    *,
    principal: Principal,
    endpoint_id: str,
    name: str | None,
    url: str | None,
    event_types: Sequence[str] | None,
) -> WebhookEndpoint:
    """Change an endpoint. Raises PanelError as `create` does."""
    endpoint = get(session, principal=principal, endpoint_id=endpoint_id)
    _assign(endpoint, name=name, url=url, event_types=event_types)
    if session.is_modified(endpoint):
        endpoint.updated_at = func.now()
        session.flush()
    return endpoint


def rotate_secret(session: Session, *, principal: Principal, endpoint_id: str, keep_old: bool) -> WebhookEndpoint:
    """Replace the secret. With `keep_old` deliveries are signed with both for a day."""
    endpoint = get(session, principal=principal, endpoint_id=endpoint_id)
    endpoint.old_secret = endpoint.secret if keep_old else None
    endpoint.old_secret_until = func.now() + OLD_SECRET_LIFETIME if keep_old else None
    endpoint.secret = _new_secret()
    endpoint.updated_at = func.now()
    session.flush()
    return endpoint


def delete(session: Session, *, principal: Principal, endpoint_id: str) -> None:
    """Delete an endpoint and what is still to be delivered to it. Raises 404."""
    session.delete(get(session, principal=principal, endpoint_id=endpoint_id))


def enqueue(session: Session, *, owner_id: str, event_type: str, data: dict[str, Any]) -> None:
    """Notify the user's endpoints that want this event, within this transaction."""
    endpoints = select(WebhookEndpoint.id, WebhookEndpoint.event_types).where(WebhookEndpoint.owner_id == owner_id)
    for endpoint_id, event_types in session.execute(endpoints):
        if event_type in event_types:
            delivery_id = new_id()
            body = event_body(delivery_id, event_type, data)
            session.add(WebhookDelivery(id=delivery_id, endpoint_id=endpoint_id, body=body))


def event_body(delivery_id: str, event_type: str, data: dict[str, Any]) -> str:
    """The text of an event, as it is signed."""
    envelope = {"id": event_id(delivery_id), "object": "event", "created_at": int(time.time())}
    return json.dumps({**envelope, "type": event_type, "data": data}, separators=(",", ":"))


def event_id(delivery_id: str) -> str:
    """The ID of an event, which stays the same when it is delivered again."""
    return f"evt_{delivery_id}"
