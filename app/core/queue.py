"""Sending Celery tasks by name: stored in the outbox by a transaction, sent after its commit.

A message holds only ids. The database is the source of truth, and the scheduler resends lost messages.
"""

import logging
from datetime import timedelta
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from app.core import db
from app.core.models import Outbox
from app.core.settings import settings

log = logging.getLogger(__name__)

# Task names; the functions are in worker/tasks/. All of them return at once: what takes time runs beside Celery.
START_JOB = "jobs.start"
RUN_BACKGROUND_TASKS = "background_tasks.run"

# Queues that any node serves.
BACKGROUND_QUEUE = "background_tasks"


CLAIM_SECONDS = 15  # a broker that does not answer blocks a sender for slightly less


def node_queue(name: str) -> str:
    """The queue that only this node serves."""
    return f"node.{name}"


def broker_url(redis_url: str) -> str:
    """REDIS_URL in Celery's format: redis-py and Celery name a Unix socket differently."""
    scheme, rest = redis_url.split("://", 1) if redis_url else ("redis", "")
    return f"redis+socket://{rest}?virtual_host=0" if scheme == "unix" else redis_url


def create_celery() -> Celery:
    """Configured so that nothing is lost or doubled by Redis: early acknowledgement, JSON, no results, no prefetch.

    The broker does not keep messages until they are acknowledged, because lost ones are sent again. If it did, a
    worker that takes one at the moment when the broker dies would exit (AttributeError in kombu 5.7).
    """
    app = Celery("athanor", broker=broker_url(settings().redis_url))
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": "athanor:",
            "ack_emulation": False,
        },
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_publish_retry=False,
    )
    return app


celery = create_celery()


def enqueue_after_commit(session: Session, task: str, *args: str, queue: str) -> None:
    """Store a message in the outbox within this transaction. Call `flush_outbox` after the commit."""
    session.add(Outbox(task=task, args=list(args), queue=queue))


def send(task: str, *args: Any, queue: str) -> None:
    """Send a message now. Raises kombu's OperationalError where the broker cannot be reached."""
    celery.send_task(task, args=args, queue=queue)


def flush_outbox() -> int:
    """Send the messages in the outbox and return how many were sent. If the broker is unreachable, the rest stays.

    Rows are claimed while they are sent, so that no two processes send the same one, and no transaction is open in the
    meantime: a broker that does not answer would keep it open until the database ends it. A process killed here leaves
    a claim that expires, or a message that is sent twice; all tasks are idempotent.
    """
    rows, sent = _claim(), list[int]()
    for row in rows:
        try:
            send(row.task, *row.args, queue=row.queue)
        except OperationalError as error:
            log.warning("broker not reachable, %d messages wait: %s", len(rows) - len(sent), error)
            break
        sent.append(row.id)
    if rows:
        with db.transaction() as session:
            session.execute(delete(Outbox).where(Outbox.id.in_(sent)))
            unsent = Outbox.id.in_([row.id for row in rows[len(sent) :]])
            session.execute(update(Outbox).where(unsent).values(claimed_until=None))
    return len(sent)


def _claim() -> list[Outbox]:
    """The oldest messages that no process is sending."""
    with db.transaction() as session:
        free = or_(Outbox.claimed_until.is_(None), Outbox.claimed_until < func.now())
        pending = select(Outbox).where(free).order_by(Outbox.id).limit(100).with_for_update(skip_locked=True)
        rows = list(session.scalars(pending))
        until = func.now() + timedelta(seconds=CLAIM_SECONDS)
        session.execute(update(Outbox).where(Outbox.id.in_([row.id for row in rows])).values(claimed_until=until))
    return rows
