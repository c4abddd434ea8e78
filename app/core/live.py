"""Live views: notifications over Valkey, and a hub that reads each update once, however many people watch.

A notification only triggers a read; viewers get what the database has after their cursor. So a lost notification, an
empty Valkey, a restarted web process or a sleeping laptop delay events but never lose one.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import redis
import redis.asyncio
from anyio import to_thread
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from app.core.settings import settings

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0  # how long to wait for a notification before looking anyway
RETRY_PAUSE_SECONDS = 0.5  # before a call that failed is repeated: Valkey may be starting
QUEUE_EVENTS = 64  # a viewer that lags further behind is dropped and reconnects with its cursor
AT_ONCE = 16  # viewers that are sent updates before other requests get a turn; each takes the event loop 0.3 ms
_PREFIX = "athanor:bell:"


@cache
def valkey(*, num_retries: int = 0) -> redis.Redis:
    """A connection pool to Valkey of this process. Calls fail within 2 s if it is unreachable.

    Calls that have the same effect if they are made twice may be repeated after a short pause: with one retry they fail
    within 4.5 s.
    """
    retry = Retry(ConstantBackoff(RETRY_PAUSE_SECONDS), num_retries)
    return redis.Redis.from_url(
        settings().redis_url, socket_timeout=2, socket_connect_timeout=2, retry=retry, driver_info=None
    )


def async_valkey(connect_seconds: float, **options: Any) -> redis.asyncio.Redis:
    """Connections to Valkey for an event loop.

    They do not tell Valkey the version of redis-py, which reads it from its package anew for each connection: 5 ms in
    which the loop does nothing else.
    """
    return redis.asyncio.Redis.from_url(
        settings().redis_url, socket_connect_timeout=connect_seconds, driver_info=None, **options
    )


def is_reachable() -> bool:
    """Whether Valkey responds."""
    try:
        valkey().ping()
    except redis.RedisError:
        return False
    return True


def notify(topic: str) -> None:
    """Wake everyone who waits on a topic. Best effort: waiters also poll."""
    try:
        valkey().publish(_PREFIX + topic, b"")
    except redis.RedisError as error:
        log.debug("%s not notified: %s", topic, error)


class Subscription:
    """Waits for notifications of a topic. One that arrives between two waits is not lost."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._subscription: Any = None

    def wait(self, seconds: float) -> bool:
        """Block until a notification or the timeout; returns whether there was one. Without Valkey it sleeps."""
        deadline = time.monotonic() + seconds
        try:
            if self._subscription is None:
                self._subscription = valkey().pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                self._subscription.subscribe(_PREFIX + self._topic)
            while (left := deadline - time.monotonic()) > 0:
                if self._subscription.get_message(timeout=left) is not None:
                    return True
        except redis.RedisError:
            self._subscription = None
            time.sleep(max(0.0, deadline - time.monotonic()))
        return False


@dataclass(frozen=True)
class Update:
    """An event on a topic: the cursor after it, its name and its JSON text."""

    cursor: str
    event: str
    data: str


@dataclass(frozen=True)
class News:
    """Updates, and the cursor after them. It claims nothing that does not exist, whatever cursor a client sent."""

    updates: list[Update]
    cursor: str

    @cached_property
    def encoded(self) -> bytes:
        """The updates as server-sent events, the cursor as their ID: encoded once for all viewers."""
        lines = (f"id: {one.cursor}\r\nevent: {one.event}\r\ndata: {one.data}\r\n\r\n" for one in self.updates)
        return "".join(lines).encode()


# Reads what is new after a cursor ("": from the beginning) up to another one (None: to the end).
Reader = Callable[[str, str | None], News]
_Viewer = asyncio.Queue[News | None]


@dataclass(eq=False)
class _Topic:
    read: Reader
    cursor: str | None = None
    present: int = 0  # viewers, including those that wait to follow
    viewers: set[_Viewer] = field(default_factory=set)
    waiting: dict[str, set[_Viewer]] = field(default_factory=dict)  # to follow, by their cursors
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Hub:
    """Fans updates out to the viewers of this process."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._listener: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Hub"]:
        """Listen for notifications inside the block. On leaving, every open stream ends."""
        self._listener = asyncio.create_task(self._listen())
        try:
            yield self
        finally:
            self.close()
            while not self._listener.done():  # the client library may swallow a cancellation while it connects
                self._listener.cancel()
                await asyncio.wait([self._listener], timeout=0.2)

    def close(self) -> None:
        """End every open stream, so that the server can stop."""
        self._closing.set()
        for topic in self._topics.values():
            for viewer in topic.viewers:
                _offer(viewer, None)

    async def stream(self, name: str, read: Reader, cursor: str) -> AsyncIterator[News]:
        """All updates of a topic after the cursor: stored ones, then new ones. Ends when the hub closes."""
        topic = self._topics.setdefault(name, _Topic(read))
        viewer: _Viewer = asyncio.Queue()
        topic.present += 1
        try:
            await self._join(topic, viewer, cursor)
            if topic.task is None:
                topic.task = asyncio.create_task(self._follow(topic))
            while not self._closing.is_set():
                news = await viewer.get()
                if news is None:
                    return
                yield news
        finally:
            topic.viewers.discard(viewer)
            topic.present -= 1
            if not topic.present:
                del self._topics[name]
                if topic.task is not None:
                    topic.task.cancel()

    async def _join(self, topic: _Topic, viewer: _Viewer, cursor: str) -> None:
        """Let a viewer follow. Of those who wait with the same cursor, the first one reads what all of them missed."""
        waiting = topic.waiting.setdefault(cursor, set())
        waiting.add(viewer)
        try:
            async with topic.lock:
                if viewer in waiting:
                    await self._admit(topic, waiting, cursor)
        finally:
            waiting.discard(viewer)
            if not waiting and topic.waiting.get(cursor) is waiting:
                del topic.waiting[cursor]

    async def _admit(self, topic: _Topic, waiting: set[_Viewer], cursor: str) -> None:
        # Bring the other viewers up to date, then these to their cursor: from here on all get the same.
        if topic.cursor is not None:
            await self._advance(topic)
        # At the others' cursor there is nothing to read; "" as the end would mean the beginning.
        if cursor != topic.cursor:
            missed = await to_thread.run_sync(topic.read, cursor, topic.cursor)
        else:
            missed = News([], cursor)
        if topic.cursor is None:
            topic.cursor = missed.cursor
        number = 0
        while waiting:
            viewer = waiting.pop()
            topic.viewers.add(viewer)
            if missed.updates:
                _offer(viewer, missed)
            number += 1
            await _give_turns(number)

    async def _follow(self, topic: _Topic) -> None:
        while topic.present:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await topic.wakeup.wait()
            topic.wakeup.clear()
            try:
                async with topic.lock:
                    await self._advance(topic)
            except Exception:  # the database is unreachable: log it and keep polling
                log.warning("live view cannot read", exc_info=True)

    async def _advance(self, topic: _Topic) -> None:
        assert topic.cursor is not None
        news = await to_thread.run_sync(topic.read, topic.cursor, None)
        topic.cursor = news.cursor
        for number, viewer in enumerate(list(topic.viewers) if news.updates else (), 1):
            _offer(viewer, news)
            await _give_turns(number)

    async def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                async with (
                    async_valkey(2) as client,
                    client.pubsub(ignore_subscribe_messages=True) as channel,
                ):
                    await channel.psubscribe(_PREFIX + "*")
                    async for message in channel.listen():
                        self._wake(message["channel"].decode().removeprefix(_PREFIX))
            except (redis.RedisError, OSError) as error:
                log.warning("Valkey not reachable, live views poll every %s s: %s", POLL_SECONDS, error)
                await asyncio.sleep(POLL_SECONDS)

    def _wake(self, notified: str) -> None:
        """Wake the topic of this name, and those whose names continue it after a colon."""
        for name, topic in self._topics.items():
            if name == notified or name.startswith(notified + ":"):
                topic.wakeup.set()


async def _give_turns(number: int) -> None:
    """Let other requests run after each few viewers."""
    if number % AT_ONCE == 0:
        await asyncio.sleep(0)


def _offer(viewer: _Viewer, news: News | None) -> None:
    if viewer.qsize() >= QUEUE_EVENTS:
        while not viewer.empty():
            viewer.get_nowait()
        news = None
    viewer.put_nowait(news)
