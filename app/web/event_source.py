"""Server-sent events of a topic of the hub (app/core/live.py)."""

from collections.abc import AsyncIterator

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.core import live

RETRY_MILLISECONDS = 1_000
PING_SECONDS = 4  # static/js/stream.js takes a connection for dead that is silent for twice as long


def event_source(
    request: Request, topic: str, read: live.Reader, cursor: str, *, ping_events: bool = False
) -> EventSourceResponse:
    """A stream of all updates on a topic after a cursor, and of new ones. The ID of each event is the next cursor.

    Pings show that the process is alive: comments, or events for a script of a page, which never sees comments.
    """
    stream = request.app.state.hub.stream(topic, read, cursor)
    return EventSourceResponse(
        _events(stream),
        ping=PING_SECONDS,
        ping_message_factory=_ping if ping_events else None,
        headers={"X-Accel-Buffering": "no"},
    )


def _ping() -> ServerSentEvent:
    return ServerSentEvent(event="ping", data="{}")  # without data it would be no event


async def _events(stream: AsyncIterator[live.News]) -> AsyncIterator[ServerSentEvent | bytes]:
    yield ServerSentEvent(comment="ready", retry=RETRY_MILLISECONDS)
    async for news in stream:
        yield news.encoded
