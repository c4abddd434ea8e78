"""The queue of generations in Valkey: requests that wait, the stream of each, and a key that its reader keeps alive.

Nothing here outlives its reader by more than a minute. The web process is the reader: it renews a key that expires
after ALIVE_SECONDS. Once that key is gone (the page was closed, the web process died, Valkey was emptied), the worker
stops generating. The worker is the writer: it adds a message to the generation's stream at least every second; after
SILENCE_SECONDS without one, the reader reports the worker as lost.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import anyio
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.core.live import async_valkey, valkey
from app.playground.schemas import GenerationMessage, GenerationTask

ALIVE_SECONDS = 3  # a generation ends when its reader has not renewed its key for this long
RENEW_SECONDS = 0.5  # how old it is at least when the reader renews it
SILENCE_SECONDS = 6.0  # a generation fails when its worker has written nothing for this long
CLAIMED_SECONDS = 30.0  # the same before its first message: a worker may be starting the process that writes
KEEP_SECONDS = 60  # after the last message a stream expires
TASK_SECONDS = 3600  # after which a request is forgotten in any case
WAIT_MS = (500, 1000)  # from and to; how often a reader without messages renews its key and looks at its place
MAX_WAITING = 100
MAX_IDLE = 16  # connections that are kept for the next readers

_CLAIMED = b""  # in place of a request that a worker has taken


def _waiting_key(node: str | None) -> str:
    """The requests that wait for a node, or for any."""
    return f"athanor:generate:waiting:{node}" if node else "athanor:generate:waiting"


def _task_key(generation_id: str) -> str:
    return f"athanor:generate:{generation_id}:order"


def _alive_key(generation_id: str) -> str:
    return f"athanor:generate:{generation_id}:alive"


def _stream_key(generation_id: str) -> str:
    return f"athanor:generate:{generation_id}:stream"


# ---- web ------------------------------------------------------------------------------------------------------------


def enqueue(*tasks: GenerationTask) -> bool:
    """Add requests for one model to the end of their node's queue; False if more than MAX_WAITING would wait.

    Valkey is asked twice if it does not answer. Raises redis.RedisError.
    """
    waiting = _waiting_key(tasks[0].node)
    # Both times may have an effect: a request is in the queue once, and not again after a worker has taken it.
    with valkey(num_retries=1).pipeline() as pipe:
        for task in tasks:
            pipe.set(_task_key(task.id), task.model_dump_json(), ex=TASK_SECONDS, nx=True)
            pipe.set(_alive_key(task.id), b"", ex=ALIVE_SECONDS)
            pipe.zadd(waiting, {task.id: time.time()})
        pipe.zcard(waiting)
        if int(pipe.execute()[-1]) <= MAX_WAITING:
            return True
        pipe.zrem(waiting, *(task.id for task in tasks))
        pipe.delete(*(key(task.id) for task in tasks for key in (_task_key, _alive_key)))
        pipe.execute()
    return False


async def read(task: GenerationTask) -> AsyncGenerator[GenerationMessage, None]:
    """The messages of a generation as they arrive, and `waiting` once or twice a second until the first one.

    Ends after `done` or `failure`; a broker that cannot be reached is a `failure` too. Closing it removes the request
    from the queue and stops the generation.
    """
    async with _connection() as client:
        try:
            async for message in _messages(client, task):
                yield message
                if message.is_last:
                    return
        except (redis.RedisError, OSError):
            yield GenerationMessage(event="failure", code="broker_away")
        finally:
            # Deleting the keys frees the worker: the cancellation that closed this generator must not interrupt it.
            with anyio.move_on_after(2, shield=True):
                await _remove(client, task)


# Connections of an event loop that no reader uses at present.
_idle: "WeakKeyDictionary[asyncio.AbstractEventLoop, list[redis.asyncio.Redis]]" = WeakKeyDictionary()


@asynccontextmanager
async def _connection() -> "AsyncIterator[redis.asyncio.Redis]":
    """A connection for one reader. It is kept for the next one, unless the block ends with an exception."""
    idle = _idle.setdefault(asyncio.get_running_loop(), [])
    client = idle.pop() if idle else _new_connection()
    try:
        yield client
    except BaseException:
        await _close(client)
        raise
    if len(idle) < MAX_IDLE:
        idle.append(client)
    else:
        await _close(client)


def _new_connection() -> "redis.asyncio.Redis":
    # All that a reader asks may be asked twice: Valkey may have been started again since the last time.
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return async_valkey(2, single_connection_client=True, socket_timeout=5, retry=retry)


async def _close(client: "redis.asyncio.Redis") -> None:
    with anyio.move_on_after(2, shield=True):
        await client.aclose()


@asynccontextmanager
async def kept_connections() -> AsyncIterator[None]:
    """Close the connections that are kept for readers of this event loop at the end of the block."""
    try:
        yield
    finally:
        for client in _idle.pop(asyncio.get_running_loop(), []):
            await _close(client)


async def _messages(client: "redis.asyncio.Redis", task: GenerationTask) -> AsyncGenerator[GenerationMessage, None]:
    last_id: Any = "0"
    waiting, began = _waiting_key(task.node), time.time()
    claimed_at: float | None = None
    last_message_at: float | None = None
    renewed_at = time.monotonic()  # by `enqueue`
    while True:
        if time.monotonic() - renewed_at >= RENEW_SECONDS:
            renewed_at = time.monotonic()
            if not await client.expire(_alive_key(task.id), ALIVE_SECONDS):
                yield GenerationMessage(event="failure", code="request_lost")
                return
        # At random: readers who came together would look for their places together, and stop the event loop.
        wait_ms = random.randint(*WAIT_MS)  # noqa: S311
        entries_by_stream: Any = await client.xread({_stream_key(task.id): last_id}, count=256, block=wait_ms)
        if entries_by_stream:
            last_message_at = time.monotonic()
            # Two shapes, by protocol version: a list of pairs or a dictionary.
            by_name = isinstance(entries_by_stream, dict)
            entries = next(iter(entries_by_stream.values()))[0] if by_name else entries_by_stream[0][1]
            for _id, fields in entries:
                yield GenerationMessage.model_validate_json(fields[b"line"])
            last_id = entries[-1][0]
        elif last_message_at is None:
            position = await client.zrank(waiting, task.id)
            if position is None and await client.get(_task_key(task.id)) == _CLAIMED:
                claimed_at = claimed_at or time.monotonic()
                if time.monotonic() - claimed_at > CLAIMED_SECONDS:
                    yield GenerationMessage(event="failure", code="worker_lost")
                    return
            elif position is None:  # its worker died between taking it from the queue and claiming it
                await client.zadd(waiting, {task.id: began})
            yield GenerationMessage(event="waiting", position=position)
        elif time.monotonic() - last_message_at > SILENCE_SECONDS:
            yield GenerationMessage(event="failure", code="worker_lost")


async def _remove(client: "redis.asyncio.Redis", task: GenerationTask) -> None:
    try:
        await client.delete(_alive_key(task.id), _task_key(task.id), _stream_key(task.id))
        await client.zrem(_waiting_key(task.node), task.id)
    except (redis.RedisError, OSError):
        pass  # the keys expire on their own


# ---- worker ---------------------------------------------------------------------------------------------------------


def dequeue(node: str, seconds: float) -> GenerationTask | None:
    """Take the request that has waited longest, for this node or else for any, and still has a reader.

    None if so many seconds pass without one. One that was added twice is taken once. Raises redis.RedisError.
    """
    keys = [_waiting_key(node), _waiting_key(None)]
    while popped := cast(tuple[bytes, bytes, float] | None, valkey().bzpopmin(keys, timeout=seconds)):
        generation_id = popped[1].decode()
        with valkey().pipeline(transaction=False) as pipe:
            pipe.set(_task_key(generation_id), _CLAIMED, xx=True, get=True, keepttl=True)
            pipe.exists(_alive_key(generation_id))
            text, is_alive = pipe.execute()
        if text and is_alive:
            return GenerationTask.model_validate_json(text)
    return None


def put_back(task: GenerationTask) -> None:
    """Put a request that was taken at the front of its queue. Raises redis.RedisError."""
    with valkey().pipeline() as pipe:
        pipe.set(_task_key(task.id), task.model_dump_json(), xx=True, keepttl=True)
        pipe.zadd(_waiting_key(task.node), {task.id: 0})
        pipe.execute()


def write(generation_id: str, messages: Iterable[GenerationMessage]) -> bool:
    """Append messages to a generation's stream. Returns whether its reader is still there. Raises redis.RedisError."""
    with valkey().pipeline(transaction=False) as pipe:
        pipe.exists(_alive_key(generation_id))
        for message in messages:
            pipe.xadd(
                _stream_key(generation_id),
                {"line": message.model_dump_json(exclude_unset=True)},
                maxlen=8192,
                approximate=True,
            )
        pipe.expire(_stream_key(generation_id), KEEP_SECONDS)
        return bool(pipe.execute()[0])
