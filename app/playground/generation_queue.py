"""The queue of generations in Valkey: requests that wait, the stream of each, and a key that its reader keeps alive.

Nothing here outlives its reader by more than a minute. The web process is the reader: it renews a key that expires
after ALIVE_SECONDS. Once that key is gone (the page was closed, the web process died, Valkey was emptied), the worker
stops generating. The worker is the writer: it adds a message to the generation's stream at least every second; after
SILENCE_SECONDS without one, the reader reports the worker as lost.
"""

import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any, cast

import anyio
import redis.asyncio

from app.core.live import valkey
from app.core.settings import settings
from app.playground.schemas import GenerationMessage, GenerationTask

ALIVE_SECONDS = 3  # a generation ends when its reader has not renewed its key for this long
SILENCE_SECONDS = 6.0  # a generation fails when its worker has written nothing for this long
KEEP_SECONDS = 60  # after the last message a stream expires
MAX_WAITING = 100


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

    Raises redis.RedisError.
    """
    waiting = _waiting_key(tasks[0].node)
    if int(valkey().zcard(waiting)) + len(tasks) > MAX_WAITING:
        return False
    with valkey().pipeline() as pipe:
        for task in tasks:
            pipe.set(_task_key(task.id), task.model_dump_json(), ex=3600)
            pipe.set(_alive_key(task.id), b"", ex=ALIVE_SECONDS)
            pipe.zadd(waiting, {task.id: time.time()})
        pipe.execute()
    return True


async def read(task: GenerationTask) -> AsyncGenerator[GenerationMessage, None]:
    """The messages of a generation as they arrive, and `waiting` twice a second until the first one.

    Ends after `done` or `failure`; a broker that cannot be reached is a `failure` too. Closing it removes the request
    from the queue and stops the generation.
    """
    client = redis.asyncio.Redis.from_url(settings().redis_url, socket_timeout=5, socket_connect_timeout=2)
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


async def _messages(client: "redis.asyncio.Redis", task: GenerationTask) -> AsyncGenerator[GenerationMessage, None]:
    last_id: Any = "0"
    last_message_at: float | None = None
    while True:
        if not await client.expire(_alive_key(task.id), ALIVE_SECONDS):
            yield GenerationMessage(event="failure", code="request_lost")
            return
        entries_by_stream: Any = await client.xread({_stream_key(task.id): last_id}, count=256, block=500)
        if entries_by_stream:
            last_message_at = time.monotonic()
            # Two shapes, by protocol version: a list of pairs or a dictionary.
            by_name = isinstance(entries_by_stream, dict)
            entries = next(iter(entries_by_stream.values()))[0] if by_name else entries_by_stream[0][1]
            for _id, fields in entries:
                yield GenerationMessage.model_validate_json(fields[b"line"])
            last_id = entries[-1][0]
        elif last_message_at is None:
            position = await client.zrank(_waiting_key(task.node), task.id)
            yield GenerationMessage(event="waiting", position=position)
        elif time.monotonic() - last_message_at > SILENCE_SECONDS:
            yield GenerationMessage(event="failure", code="worker_lost")


async def _remove(client: "redis.asyncio.Redis", task: GenerationTask) -> None:
    try:
        await client.delete(_alive_key(task.id), _task_key(task.id), _stream_key(task.id))
        await client.zrem(_waiting_key(task.node), task.id)
    except (redis.RedisError, OSError):
        pass  # the keys expire on their own
    await client.aclose()


# ---- worker ---------------------------------------------------------------------------------------------------------


def dequeue(node: str) -> GenerationTask | None:
    """Take the request that has waited longest, for this node or else for any, and still has a reader; or None.

    Raises redis.RedisError.
    """
    while popped := _pop(node):
        generation_id = popped[0][0].decode()
        text, alive = valkey().mget(_task_key(generation_id), _alive_key(generation_id))
        if text is not None and alive is not None:
            return GenerationTask.model_validate_json(text)
    return None


def _pop(node: str) -> list[tuple[bytes, float]]:
    popped: Any = valkey().zpopmin(_waiting_key(node)) or valkey().zpopmin(_waiting_key(None))
    return cast(list[tuple[bytes, float]], popped)


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
