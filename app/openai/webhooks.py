"""Webhook endpoints under /v1."""

from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.core import db
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.model_base import new_id
from app.core.openai_models import WebhookEndpoint
from app.openai import objects
from app.openai.objects import After, RetryCount
from app.web.auth import Reader, Submitter
from app.web.errors import busy
from app.web.json_body import StrictRoute
from app.webhooks import delivery, service

router = APIRouter(route_class=StrictRoute)

PREFIX = "we_"
_tests = BoundedSemaphore(4)  # at the same time: an endpoint may take long to answer

EventTypes = Annotated[list[str], Field(max_length=100)]


class EndpointRequest(BaseModel):
    """An endpoint to add."""

    name: str
    url: str
    event_types: EventTypes


class EndpointChange(BaseModel):
    """What is to change."""

    name: str | None = None
    url: str | None = None
    event_types: EventTypes | None = None


class RotateRequest(BaseModel):
    """How to replace a secret."""

    keep_old_secret_active_for_24_hours: bool = False


class TestRequest(BaseModel):
    """Which event to send."""

    event_type: str = ""


def _answer(endpoint: WebhookEndpoint, with_secret: bool = False) -> dict[str, Any]:
    answer = {
        "id": f"{PREFIX}{endpoint.id}",
        "object": "webhook_endpoint",
        "created_at": objects.seconds(endpoint.created_at),
        "updated_at": objects.seconds(endpoint.updated_at),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "signing_secret_hint": f"whsec_…{endpoint.secret[-4:]}",
    }
    return {**answer, "signing_secret": endpoint.secret} if with_secret else answer


@router.get("/webhook_event_types")
def list_event_types(principal: Reader) -> dict[str, Any]:
    """The events that endpoints can be notified of."""
    return {"object": "list", "data": list(service.EVENT_TYPES)}


@router.post("/webhook_endpoints")
def create(principal: Submitter, body: EndpointRequest, retry_count: RetryCount = 0) -> dict[str, Any]:
    """Add an endpoint. Its secret is answered only now."""
    with db.transaction() as session:
        endpoint = service.create(session, principal=principal, is_repeated=retry_count > 0, **body.model_dump())
        return _answer(endpoint, with_secret=True)


@router.get("/webhook_endpoints")
def list_endpoints(
    principal: Reader, after: After = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """List your endpoints, newest first."""
    place = None if after is None else objects.row_id(PREFIX, after)
    with db.transaction() as session:
        rows, cursor = service.list_endpoints(session, principal=principal, limit=limit, after=place)
    return objects.page([_answer(row) for row in rows], cursor is not None)


@router.get("/webhook_endpoints/{endpoint_id}")
def retrieve(principal: Reader, endpoint_id: str) -> dict[str, Any]:
    """Get an endpoint."""
    with db.transaction() as session:
        row_id = objects.row_id(PREFIX, endpoint_id)
        return _answer(service.get(session, principal=principal, endpoint_id=row_id))


@router.post("/webhook_endpoints/{endpoint_id}")
def update(principal: Submitter, endpoint_id: str, body: EndpointChange) -> dict[str, Any]:
    """Change an endpoint."""
    row_id = objects.row_id(PREFIX, endpoint_id)
    with db.transaction() as session:
        return _answer(service.update(session, principal=principal, endpoint_id=row_id, **body.model_dump()))


@router.delete("/webhook_endpoints/{endpoint_id}")
def delete(principal: Submitter, endpoint_id: str) -> dict[str, Any]:
    """Delete an endpoint."""
    row_id = objects.row_id(PREFIX, endpoint_id)
    with db.transaction() as session:
        service.delete(session, principal=principal, endpoint_id=row_id)
    return {"id": f"{PREFIX}{row_id}", "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
def rotate_secret(principal: Submitter, endpoint_id: str, body: RotateRequest | None = None) -> dict[str, Any]:
    """Replace the secret of an endpoint. The new one is answered only now."""
    row_id = objects.row_id(PREFIX, endpoint_id)
    keep_old = body is not None and body.keep_old_secret_active_for_24_hours
    with db.transaction() as session:
        endpoint = service.rotate_secret(session, principal=principal, endpoint_id=row_id, keep_old=keep_old)
        return _answer(endpoint, with_secret=True)


@router.post("/webhook_endpoints/{endpoint_id}/test")
def test(principal: Submitter, endpoint_id: str, body: TestRequest) -> dict[str, Any]:
    """Send a sample event now."""
    row_id = objects.row_id(PREFIX, endpoint_id)
    with db.transaction() as session:
        endpoint = service.get(session, principal=principal, endpoint_id=row_id)
    (event_type,) = service.check_event_types([body.event_type])
    if not _tests.acquire(blocking=False):
        raise busy()
    try:
        delivery_id = new_id()
        sample = service.event_body(delivery_id, event_type, {"id": "ftjob-test"})
        status = delivery.post(endpoint, delivery_id, sample)
    except delivery.FAILURES as error:
        message = _("The endpoint did not answer: {why}", why=str(error)[:300])
        raise bad_field("url", "endpoint_silent", message) from None
    finally:
        _tests.release()
    return {
        "object": "webhook_endpoint.test",
        "event_type": event_type,
        "status_code": status,
        "success": True,
        "webhook_endpoint_id": f"{PREFIX}{row_id}",
    }
