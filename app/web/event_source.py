"""Server-sent events of a topic of the hub (app/core/live.py)."""

from collections.abc import AsyncIterator

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.core import live

PING_SECONDS = 15
RETRY_MILLISECONDS = 1_000


def event_source(request: Request, topic: str, read: live.Reader, cursor: str) -> EventSourceResponse:
    """A stream of all updates on a topic after a cursor, and of new ones. The ID of each event is the next cursor."""
    updates = request.app.state.hub.stream(topic, read, cursor)
    return EventSourceResponse(_events(updates), ping=PING_SECONDS, headers={"X-Accel-Buffering": "no"})


async def _events(updates: AsyncIterator[live.Update]) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(comment="ready", retry=RETRY_MILLISECONDS)
    async for update in updates:
        yield ServerSentEvent(id=update.cursor, event=update.event, data=update.data)
