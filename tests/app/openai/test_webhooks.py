"""Webhooks: endpoints by OpenAI's own client, deliveries to a server on loopback, and the client's own verifier."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import select, update

from app.core import db
from app.core.openai_models import WebhookDelivery, WebhookEndpoint
from app.core.settings import settings
from app.jobs import service
from app.jobs.scheduling.scheduler import Scheduler
from app.webhooks import delivery
from app.webhooks import service as webhooks
from tests.app.jobs import factories
from tests.app.openai.clients import ClientCalls, client_calls, losing_answers
from tests.users import Person
from tests.waiting import until

SMALL = {"max_steps": 8, "warmup_steps": 1}
EVENTS = ["fine_tuning.job.succeeded", "fine_tuning.job.cancelled"]


@dataclass
class Receiver:
    """What a server was sent; it answers with `status`."""

    url: str = ""
    status: int = 200
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(received.status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    received.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    monkeypatch.setenv("ATHANOR_WEBHOOK_HOSTS", "127.0.0.1")
    settings.cache_clear()
    yield received
    server.shutdown()
    server.server_close()
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def newest_client(openai: Any, alice_client: ClientCalls) -> ClientCalls:
    """A client that knows webhook endpoints."""
    if not hasattr(alice_client.client, "webhooks") or not hasattr(alice_client.client.webhooks, "create"):
        pytest.skip("major 1 has no webhook endpoints")
    return alice_client


def endpoint(client: ClientCalls, receiver: Receiver) -> Any:
    return client("webhooks.create", name="here", url=receiver.url, event_types=EVENTS)


def end_a_job(person: Person) -> str:
    job_id = factories.submitted(person, factories.corpus(person), **SMALL)
    with db.transaction() as session:
        service.cancel(session, principal=person.principal, job_id=job_id)
    return job_id


def deliver_due() -> list[str]:
    ids = delivery.claim(10)
    for delivery_id in ids:
        delivery.deliver(delivery_id)
    return ids


def waiting() -> list[WebhookDelivery]:
    with db.transaction() as session:
        return list(session.scalars(select(WebhookDelivery)))


def make_due() -> None:
    with db.transaction() as session:
        session.execute(update(WebhookDelivery).values(due_at=db.now()))


@pytest.fixture(autouse=True)
def machine(database: str) -> Iterator[None]:
    factories.node(slots=100)
    yield
    with db.transaction() as session:
        for row in session.scalars(select(WebhookDelivery)):
            session.delete(row)


def test_the_end_of_a_job_is_delivered_and_passes_the_clients_verifier(
    newest_client: ClientCalls, openai: Any, alice_user: Person, receiver: Receiver
) -> None:
    added = endpoint(newest_client, receiver)
    job_id = end_a_job(alice_user)
    deliver_due()
    newest_client("webhooks.delete", added.id)
    ((headers, body),) = receiver.requests
    event = newest_client.client.webhooks.unwrap(body, headers, secret=added.signing_secret)
    assert (event.type, event.data.id) == ("fine_tuning.job.cancelled", f"ftjob-{job_id}")
    assert headers["webhook-id"] == event.id
    with pytest.raises(openai.InvalidWebhookSignatureError):
        newest_client.client.webhooks.unwrap(
            body.replace(b"cancelled", b"succeeded"), headers, secret=added.signing_secret
        )
    assert waiting() == []


def test_a_refused_delivery_is_tried_again_with_the_same_id_until_it_is_accepted(
    newest_client: ClientCalls, alice_user: Person, receiver: Receiver
) -> None:
    added = endpoint(newest_client, receiver)
    end_a_job(alice_user)
    pauses = []
    for status in (500, 300, 302, 410):
        receiver.status = status
        before = db.now()
        deliver_due()
        (row,) = waiting()
        pauses.append(round((row.due_at - before).total_seconds()))
        assert deliver_due() == []
        make_due()
    receiver.status = 204
    deliver_due()
    newest_client("webhooks.delete", added.id)
    assert waiting() == []
    assert len({headers["webhook-id"] for headers, _body in receiver.requests}) == 1
    assert len(receiver.requests) == 5
    assert [pause >= planned for pause, planned in zip(pauses, delivery.PAUSES, strict=False)] == [True] * 4


def test_a_delivery_is_given_up_after_the_last_pause(
    newest_client: ClientCalls, alice_user: Person, receiver: Receiver
) -> None:
    added = endpoint(newest_client, receiver)
    end_a_job(alice_user)
    receiver.status = 503
    for _time in range(len(delivery.PAUSES) + 1):
        make_due()
        deliver_due()
    newest_client("webhooks.delete", added.id)
    assert waiting() == []
    assert len(receiver.requests) == len(delivery.PAUSES) + 1


def test_the_scheduler_delivers(newest_client: ClientCalls, alice_user: Person, receiver: Receiver) -> None:
    added = endpoint(newest_client, receiver)
    end_a_job(alice_user)
    scheduler = Scheduler()
    try:
        assert scheduler.step()
        until(lambda: bool(receiver.requests), what="the delivery")
        until(lambda: not waiting(), what="its end")
    finally:
        scheduler.close()
    newest_client("webhooks.delete", added.id)


def test_endpoints_get_what_they_ask_for_only(
    newest_client: ClientCalls, alice_user: Person, receiver: Receiver
) -> None:
    added = newest_client("webhooks.create", name="other", url=receiver.url, event_types=["fine_tuning.job.succeeded"])
    end_a_job(alice_user)
    assert waiting() == []
    newest_client("webhooks.update", added.id, event_types=EVENTS)
    end_a_job(alice_user)
    assert len(waiting()) == 1
    newest_client("webhooks.delete", added.id)
    assert waiting() == []


def test_a_rotated_secret_signs_with_both_if_asked(newest_client: ClientCalls, receiver: Receiver) -> None:
    added = endpoint(newest_client, receiver)
    rotated = newest_client("webhooks.rotate_secret", added.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != added.signing_secret
    result = newest_client("webhooks.test", added.id, event_type="fine_tuning.job.failed")
    assert (result.status_code, result.success, result.webhook_endpoint_id) == (200, True, added.id)
    headers, body = receiver.requests[-1]
    for secret in (added.signing_secret, rotated.signing_secret):
        newest_client.client.webhooks.unwrap(body, headers, secret=secret)
    newest_client("webhooks.test", added.id, event_type="fine_tuning.job.failed")
    assert len(receiver.requests[-1][0]["webhook-signature"].split()) == 2
    with db.transaction() as session:
        session.execute(update(WebhookEndpoint).values(old_secret_until=db.now()))
    newest_client("webhooks.test", added.id, event_type="fine_tuning.job.failed")
    assert len(receiver.requests[-1][0]["webhook-signature"].split()) == 1
    newest_client("webhooks.rotate_secret", added.id)
    newest_client("webhooks.test", added.id, event_type="fine_tuning.job.failed")
    assert len(receiver.requests[-1][0]["webhook-signature"].split()) == 1
    newest_client("webhooks.delete", added.id)


def test_an_endpoint_whose_answer_was_lost_is_added_once_and_its_secret_answered(
    newest_client: ClientCalls, openai: Any, server: str, key: str, receiver: Receiver
) -> None:
    before = {one.id for one in newest_client.pages("webhooks.list")}
    with losing_answers(server, 1) as front, client_calls(openai, front.url, key, is_async=False) as client:
        added = endpoint(client, receiver)
        assert len(front.requests) == 2
    assert {one.id for one in newest_client.pages("webhooks.list")} - before == {added.id}
    assert added.signing_secret.startswith("whsec_")
    again = endpoint(newest_client, receiver)  # another request, which wants another endpoint
    assert again.id != added.id
    for one in (added, again):
        newest_client("webhooks.delete", one.id)


def test_endpoints_are_listed_without_their_secrets(
    newest_client: ClientCalls, bob_client: ClientCalls, openai: Any, receiver: Receiver
) -> None:
    added = [endpoint(newest_client, receiver) for _n in range(2)]
    listed = newest_client.pages("webhooks.list", limit=1)
    assert [one.id for one in listed] == [one.id for one in reversed(added)]
    assert all(not hasattr(one, "signing_secret") for one in listed)
    assert newest_client("webhooks.retrieve", added[0].id).signing_secret_hint.endswith(added[0].signing_secret[-4:])
    assert bob_client.pages("webhooks.list") == []
    with pytest.raises(openai.NotFoundError):
        bob_client("webhooks.retrieve", added[0].id)
    for one in added:
        assert newest_client("webhooks.delete", one.id).deleted


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"url": "http://example.com/"}, "url", "url_refused"),
        ({"url": "https://10.0.0.1/"}, "url", "url_refused"),
        ({"event_types": ["batch.completed"]}, "event_types", "event_type_unknown"),
        ({"event_types": []}, "event_types", "event_type_unknown"),
    ],
)
def test_a_refused_endpoint_names_its_field(
    newest_client: ClientCalls, openai: Any, receiver: Receiver, change: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        newest_client("webhooks.create", **{"name": "x", "url": receiver.url, "event_types": EVENTS, **change})
    assert (refused.value.param, refused.value.code) == (param, code)


def test_an_endpoint_that_is_away_fails_the_test_of_it(
    newest_client: ClientCalls, openai: Any, receiver: Receiver
) -> None:
    added = newest_client("webhooks.create", name="away", url="http://127.0.0.1:9/", event_types=EVENTS)
    with pytest.raises(openai.BadRequestError) as refused:
        newest_client("webhooks.test", added.id, event_type=EVENTS[0])
    assert refused.value.code == "endpoint_silent"
    newest_client("webhooks.delete", added.id)


def test_an_endpoint_can_be_tested_again_and_again(newest_client: ClientCalls, receiver: Receiver) -> None:
    added = endpoint(newest_client, receiver)
    for _time in range(5):
        assert newest_client("webhooks.test", added.id, event_type=EVENTS[0]).success
    newest_client("webhooks.delete", added.id)


def test_an_event_that_is_named_twice_is_stored_once(newest_client: ClientCalls, receiver: Receiver) -> None:
    added = newest_client("webhooks.create", name="x", url=receiver.url, event_types=[*EVENTS, *EVENTS])
    assert added.event_types == EVENTS
    newest_client("webhooks.delete", added.id)


def test_more_endpoints_than_the_limit_are_refused(
    newest_client: ClientCalls, openai: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_ENDPOINTS", 1)
    added = endpoint(newest_client, receiver)
    with pytest.raises(openai.BadRequestError) as refused:
        endpoint(newest_client, receiver)
    assert refused.value.code == "endpoints_many"
    newest_client("webhooks.delete", added.id)
