"""The line of generations in Valkey: who waits, what is written for whom, and whether somebody still reads it.

Nothing here outlives its reader by more than seconds. The reader keeps a key alive; where that is gone (the page was
left, the web process died, Valkey was emptied) the writer stops. The writer puts a line into the generation's stream
at least every second; where none comes, the reader is told.
"""

import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any, cast

import anyio
import redis.asyncio

from app.core.live import valkey
from app.core.settings import settings
from app.playground.schemas import GenerationMessage, GenerationTask

ALIVE_SECONDS = 3  # without a sign of the reader for so long, its generation ends
SILENCE_SECONDS = 6.0  # without a line of the writer for so long, it is given up
KEEP_SECONDS = 60  # how long a stream nobody reads lies around
MAX_WAITING = 100

_WAITING = "athanor:generate:waiting"


def _order(generation_id: str) -> str:
    return f"athanor:generate:{generation_id}:order"


def _alive(generation_id: str) -> str:
    return f"athanor:generate:{generation_id}:alive"


def _stream(generation_id: str) -> str:
    return f"athanor:generate:{generation_id}:stream"


# ---- the web's side -------------------------------------------------------------------------------------------------


def enqueue(order: GenerationTask) -> bool:
    """Stand at the end of the line; False where that is too long."""
    if int(valkey().zcard(_WAITING)) >= MAX_WAITING:
        return False
    with valkey().pipeline() as pipe:
        pipe.set(_order(order.id), order.model_dump_json(), ex=3600)
        pipe.set(_alive(order.id), b"", ex=ALIVE_SECONDS)
        pipe.zadd(_WAITING, {order.id: time.time()})
        pipe.execute()
    return True


async def read(generation_id: str) -> AsyncGenerator[GenerationMessage, None]:
    """What is written for a generation, as it comes; `waiting` twice a second while nobody writes.

    Ends after `done` or `failure`. Closing it leaves the line and ends the writing.
    """
    client = redis.asyncio.Redis.from_url(settings().redis_url, socket_timeout=5, socket_connect_timeout=2)
    try:
        async for line in _lines(client, generation_id):
            yield line
            if line.is_last:
                return
    except (redis.RedisError, OSError):
        yield GenerationMessage(event="failure", code="broker_away")
    finally:
        # Leaving is what frees the writer: it may not be cut short by the cancellation that caused it.
        with anyio.move_on_after(2, shield=True):
            await _leave(client, generation_id)


async def _lines(client: "redis.asyncio.Redis", generation_id: str) -> AsyncGenerator[GenerationMessage, None]:
    last: Any = "0"
    heard: float | None = None
    while True:
        if not await client.expire(_alive(generation_id), ALIVE_SECONDS):
            yield GenerationMessage(event="failure", code="request_lost")
            return
        entries_by_stream: Any = await client.xread({_stream(generation_id): last}, count=256, block=500)
        if entries_by_stream:
            heard = time.monotonic()
            # Two shapes, by protocol version: a list of pairs or a dictionary.
            by_name = isinstance(entries_by_stream, dict)
            entries = next(iter(entries_by_stream.values()))[0] if by_name else entries_by_stream[0][1]
            for _id, fields in entries:
                yield GenerationMessage.model_validate_json(fields[b"line"])
            last = entries[-1][0]
        elif heard is None:
            position = await client.zrank(_WAITING, generation_id)
            yield GenerationMessage(event="waiting", position=position)
        elif time.monotonic() - heard > SILENCE_SECONDS:
            yield GenerationMessage(event="failure", code="worker_lost")


async def _leave(client: "redis.asyncio.Redis", generation_id: str) -> None:
    try:
        await client.delete(_alive(generation_id), _order(generation_id), _stream(generation_id))
        await client.zrem(_WAITING, generation_id)
    except (redis.RedisError, OSError):
        pass  # the keys expire by themselves
    await client.aclose()


# ---- the worker's side ----------------------------------------------------------------------------------------------


def dequeue() -> GenerationTask | None:
    """The generation that has waited longest and still has a reader; it leaves the line."""
    while popped := cast(list[tuple[bytes, float]], valkey().zpopmin(_WAITING)):
        generation_id = popped[0][0].decode()
        text, wanted = valkey().mget(_order(generation_id), _alive(generation_id))
        if text is not None and wanted is not None:
            return GenerationTask.model_validate_json(text)
    return None


def write(generation_id: str, lines: Iterable[GenerationMessage]) -> bool:
    """Append to a generation's stream and say whether somebody still reads it."""
    with valkey().pipeline(transaction=False) as pipe:
        pipe.exists(_alive(generation_id))
        for line in lines:
            pipe.xadd(
                _stream(generation_id),
                {"line": line.model_dump_json(exclude_unset=True)},
                maxlen=8192,
                approximate=True,
            )
        pipe.expire(_stream(generation_id), KEEP_SECONDS)
        return bool(pipe.execute()[0])
