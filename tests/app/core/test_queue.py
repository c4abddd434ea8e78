"""The outbox: messages are sent after their transaction, once, and survive an outage of the broker."""

import sys
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import kombu
import pytest
from sqlalchemy import func, select, text, update

from app.core import db, live, queue
from app.core.models import Outbox
from app.core.settings import settings
from tests.servers import Servers

QUEUE = "test"
BROADCAST = kombu.Exchange("broadcast", type="fanout")


@pytest.fixture(autouse=True)
def _empty(database: str) -> None:
    live.valkey().flushall()
    with db.transaction() as session:
        session.query(Outbox).delete()


def outbox_size() -> int:
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(Outbox)) or 0


def waiting() -> int:
    return live.valkey().llen(f"athanor:{QUEUE}")  # type: ignore[return-value]


def enqueue(n: int) -> None:
    with db.transaction() as session:
        for i in range(n):
            queue.enqueue_after_commit(session, "test.task", str(i), queue=QUEUE)


def test_a_message_is_sent_after_the_commit_and_leaves_the_outbox() -> None:
    enqueue(3)
    assert (outbox_size(), waiting()) == (3, 0)
    assert queue.flush_outbox() == 3
    assert (outbox_size(), waiting()) == (0, 3)
    assert queue.flush_outbox() == 0


def test_a_consumer_that_has_a_message_survives_the_death_of_the_broker(running_servers: Servers) -> None:
    """It closes its connection twice, as Celery's does, which also has a mailbox for broadcasts."""
    messages: list[kombu.Message] = []
    queues = [kombu.Queue(QUEUE, routing_key=QUEUE), kombu.Queue("mailbox", BROADCAST, auto_delete=True)]
    queue.send("test.task", "1", queue=QUEUE)
    connection = queue.celery.connection_for_read()
    kombu.Consumer(connection.default_channel, queues, on_message=messages.append).consume()
    connection.drain_events(timeout=5)
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.1)  # it waits for the next message
    server = running_servers.valkey.process()
    assert server is not None
    server.kill()
    server.wait(10)
    try:
        connection.collect()
        connection.close()
    finally:
        running_servers.valkey.start()
    assert len(messages) == 1


def test_a_rolled_back_transaction_sends_nothing() -> None:
    with suppress(ZeroDivisionError), db.transaction() as session:
        queue.enqueue_after_commit(session, "test.task", "1", queue=QUEUE)
        1 / 0  # noqa: B018
    assert (queue.flush_outbox(), outbox_size(), waiting()) == (0, 0, 0)


def test_concurrent_flushes_send_each_message_once() -> None:
    enqueue(40)
    barrier = threading.Barrier(4)
    sent: list[int] = []

    def flush() -> None:
        barrier.wait(10)
        sent.append(queue.flush_outbox())

    threads = [threading.Thread(target=flush) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (sum(sent), waiting(), outbox_size()) == (40, 40, 0)


def test_messages_are_sent_once_the_broker_is_back(running_servers: Servers, caplog: pytest.LogCaptureFixture) -> None:
    enqueue(2)
    running_servers.valkey.stop()
    try:
        assert queue.flush_outbox() == 0
        live.notify("anything")  # raises nothing
        assert outbox_size() == 2
        assert "broker not reachable, 2 messages wait" in caplog.text
    finally:
        running_servers.valkey.start()
    assert queue.flush_outbox() == 2
    assert (outbox_size(), waiting()) == (0, 2)


def test_messages_are_sent_outside_a_transaction_by_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enqueue(2)
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in %'"
    seen: list[tuple[int, int]] = []

    def look(*_message: str, **_where: str) -> None:
        with db.transaction() as session:
            others = session.scalar(text(open_ones)) or 0
        seen.append((others, queue.flush_outbox()))

    monkeypatch.setattr(queue, "send", look)
    assert queue.flush_outbox() == 2
    assert (seen, outbox_size()) == ([(0, 0), (0, 0)], 0)


def test_messages_of_a_dead_sender_are_sent_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue(3)
    with monkeypatch.context() as patched:
        patched.setattr(queue, "send", lambda *_message, **_where: sys.exit(137))
        with pytest.raises(SystemExit):
            queue.flush_outbox()
    assert (queue.flush_outbox(), outbox_size(), waiting()) == (0, 3, 0)
    with db.transaction() as session:
        session.execute(update(Outbox).values(claimed_until=func.now() - timedelta(seconds=1)))
    assert (queue.flush_outbox(), outbox_size(), waiting()) == (3, 0, 3)


@pytest.mark.parametrize(
    ("given", "broker"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("rediss://u:p@host/0", "rediss://u:p@host/0"),
        ("unix:///run/a b/valkey.sock", "redis+socket:///run/a b/valkey.sock?virtual_host=0"),
    ],
)
def test_one_broker_url_works_for_both_libraries(given: str, broker: str) -> None:
    assert queue.broker_url(given) == broker


def test_celery_uses_no_features_that_lose_or_duplicate_messages() -> None:
    conf: Any = queue.create_celery().conf
    assert conf.task_acks_late is False
    assert conf.task_ignore_result is True
    assert conf.accept_content == ["json"]


def test_a_claim_outlasts_the_timeout_of_a_silent_broker() -> None:
    limits: Any = queue.create_celery().conf.broker_transport_options
    once_more = 2 * limits["socket_timeout"] + limits["socket_connect_timeout"]  # on a new connection
    assert once_more < queue.CLAIM_SECONDS < settings().lease_seconds
