"""Messages: owed by a transaction, sent after it, sent once, and never lost while the broker is away."""

import threading
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import func, select

from app import db, live, queue
from app.models import Outbox
from tests.servers import Servers

QUEUE = "test"


@pytest.fixture(autouse=True)
def _empty(database: str) -> None:
    live.valkey().flushall()
    with db.transaction() as session:
        session.query(Outbox).delete()


def owed() -> int:
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(Outbox)) or 0


def waiting() -> int:
    return live.valkey().llen(f"athanor:{QUEUE}")  # type: ignore[return-value]


def owe(n: int) -> None:
    with db.transaction() as session:
        for i in range(n):
            queue.owe(session, "test.task", str(i), queue=QUEUE)


def test_a_message_is_sent_after_the_commit_and_then_no_longer_owed() -> None:
    owe(3)
    assert (owed(), waiting()) == (3, 0)
    assert queue.flush_outbox() == 3
    assert (owed(), waiting()) == (0, 3)
    assert queue.flush_outbox() == 0


def test_a_transaction_that_rolls_back_owes_nothing() -> None:
    with suppress(ZeroDivisionError), db.transaction() as session:
        queue.owe(session, "test.task", "1", queue=QUEUE)
        1 / 0  # noqa: B018
    assert (queue.flush_outbox(), owed(), waiting()) == (0, 0, 0)


def test_two_processes_that_flush_at_once_send_each_message_once() -> None:
    owe(40)
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
    assert (sum(sent), waiting(), owed()) == (40, 40, 0)


def test_while_the_broker_is_away_messages_stay_owed_and_are_sent_once_it_is_back(
    running_servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    owe(2)
    running_servers.valkey.stop()
    try:
        assert queue.flush_outbox() == 0
        live.ring("anything")  # raises nothing
        assert owed() == 2
        assert "broker not reachable, 2 messages wait" in caplog.text
    finally:
        running_servers.valkey.start()
    assert queue.flush_outbox() == 2
    assert (owed(), waiting()) == (0, 2)


@pytest.mark.parametrize(
    ("given", "broker"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("rediss://u:p@host/0", "rediss://u:p@host/0"),
        ("unix:///run/a b/valkey.sock", "redis+socket:///run/a b/valkey.sock?virtual_host=0"),
    ],
)
def test_one_address_serves_both_libraries(given: str, broker: str) -> None:
    assert queue.broker_url(given) == broker


def test_celery_keeps_to_what_redis_cannot_lose_or_double() -> None:
    conf: Any = queue.create_celery().conf
    assert conf.task_acks_late is False
    assert conf.task_ignore_result is True
    assert conf.accept_content == ["json"]
