"""Delivers events to webhook endpoints, signed as Standard Webhooks are, again and again until one is accepted.

An event is delivered at least once. The scheduler's process does it in threads of its own, so that an endpoint that
does not answer keeps nothing else waiting.
"""

import base64
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import HTTPException
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import HTTPError

from app.core import db
from app.core.addresses import connect, cut, resolve
from app.core.errors import PanelError
from app.core.notice_models import NoticeDelivery
from app.core.openai_models import WebhookDelivery, WebhookEndpoint
from app.core.version import VERSION
from app.webhooks import service

log = logging.getLogger(__name__)

Delivery = TypeVar("Delivery", WebhookDelivery, NoticeDelivery)

NUM_THREADS = 4
TIMEOUT_SECONDS = 10.0  # until an endpoint must have answered
CLAIM_SECONDS = 60  # at least, after which a delivery whose process was killed is tried again
# Pauses between the tries, in seconds; after the last one the event is given up, two days after it happened.
PAUSES = (5, 30, 120, 600, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
FAILURES = (OSError, HTTPError, HTTPException, PanelError)


class Deliveries:
    """The deliveries of one kind of the process that leads: `claim` names those that are due, `deliver` tries one."""

    def __init__(self, claim: Callable[[int], list[str]], deliver: Callable[[str], None]) -> None:
        self._claim = claim
        self._deliver = deliver
        self._executor = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="delivery")
        self._num_open = 0
        self._lock = threading.Lock()

    def step(self) -> int:
        """Begin as many due deliveries as there are free threads, and return how many."""
        with self._lock:
            num_free = NUM_THREADS - self._num_open
        ids = self._claim(num_free) if num_free else []
        for delivery_id in ids:
            with self._lock:
                self._num_open += 1
            self._executor.submit(self._try, delivery_id)
        return len(ids)

    def _try(self, delivery_id: str) -> None:
        try:
            self._deliver(delivery_id)
        except SQLAlchemyError as error:
            log.warning("delivery %s: the database cannot be reached: %s", delivery_id, error)
        except Exception:  # would vanish in the executor
            log.exception("delivery %s failed", delivery_id)
        finally:
            with self._lock:
                self._num_open -= 1


def claim(limit: int) -> list[str]:
    """The IDs of the webhooks that are due, which nobody else gets for a while."""
    return claim_due(WebhookDelivery, limit)


def claim_due(table: type[Delivery], limit: int) -> list[str]:
    """The IDs of the deliveries of a table that are due, which nobody else gets for a while."""
    with db.transaction() as session:
        due = select(table).where(table.due_at <= func.now()).order_by(table.due_at)
        rows = session.scalars(due.limit(limit).with_for_update(skip_locked=True)).all()
        for row in rows:
            row.num_tries += 1
            pause = PAUSES[min(row.num_tries, len(PAUSES)) - 1]  # if its process is killed, or fails unforeseen
            row.due_at = func.now() + timedelta(seconds=max(CLAIM_SECONDS, pause))
        return [row.id for row in rows]


def deliver(delivery_id: str) -> None:
    """Try a claimed delivery: delete it if the endpoint accepts it or all tries are over, else plan the next one."""
    with db.transaction() as session:
        delivery = session.get(WebhookDelivery, delivery_id)
        if delivery is None:  # its endpoint was deleted
            return
        endpoint = session.get_one(WebhookEndpoint, delivery.endpoint_id)
    is_accepted = _is_accepted(endpoint, delivery)
    with db.transaction() as session:
        row = session.get(WebhookDelivery, delivery_id, with_for_update=True)
        if row is not None and (is_accepted or row.num_tries > len(PAUSES)):
            session.delete(row)
        elif row is not None:
            row.due_at = func.now() + timedelta(seconds=PAUSES[row.num_tries - 1])


def _is_accepted(endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> bool:
    try:
        status = post(endpoint, delivery.id, delivery.body)
    except FAILURES as error:
        log.info("webhook %s was not delivered: %s", delivery.id, error)
        return False
    return 200 <= status < 300


def post(endpoint: WebhookEndpoint, delivery_id: str, body: str) -> int:
    """Send an event and return the status of the answer, whose body is not read. Redirects are not followed.

    Raises one of FAILURES.
    """
    target = resolve(endpoint.url)
    connection = connect(target, TIMEOUT_SECONDS)
    timer = threading.Timer(TIMEOUT_SECONDS, cut, [connection])  # the timeout of a socket is that of one read
    timer.start()
    try:
        headers = {
            "Host": target.host_header,
            "Content-Type": "application/json",
            "User-Agent": f"Athanor/{VERSION}",
            **signature_headers(endpoint, delivery_id, body, int(time.time())),
        }
        connection.request("POST", target.path, body.encode(), headers, preload_content=False)
        return connection.getresponse().status
    finally:
        timer.cancel()
        connection.close()


def signature_headers(endpoint: WebhookEndpoint, delivery_id: str, body: str, now: int) -> dict[str, str]:
    """The headers that prove where an event comes from. `now` is in Unix seconds."""
    event_id = service.event_id(delivery_id)
    secrets = [endpoint.secret]
    if (
        endpoint.old_secret is not None
        and endpoint.old_secret_until is not None
        and endpoint.old_secret_until > db.now()
    ):
        secrets.append(endpoint.old_secret)
    signatures = " ".join(f"v1,{_signature(secret, f'{event_id}.{now}.{body}')}" for secret in secrets)
    return {"webhook-id": event_id, "webhook-timestamp": str(now), "webhook-signature": signatures}


def _signature(secret: str, text: str) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
