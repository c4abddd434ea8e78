"""Strict JSON of request bodies: no NaN, no infinity, no key twice in an object, and a limited number of values."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.core.i18n import _
from trainer.formats import strict_json

# In all objects and lists of a body: 1,000 messages have 3,000. Each wrong one costs the event loop about 6 µs.
MAX_VALUES = 5_000


class StrictRequest(Request):
    """A request whose JSON is parsed strictly."""

    async def json(self) -> Any:
        """The parsed body. Raises json.JSONDecodeError, which FastAPI answers with an error at the body, or 422."""
        body = await self.body()
        try:
            value = strict_json.loads(body)
        except strict_json.DuplicateKey as error:
            raise _invalid(_("the key {key} stands twice in an object", key=error.key[:80]), body, error.key) from None
        except (strict_json.InvalidConstant, strict_json.InfiniteNumber) as error:
            raise _invalid(_("{word} is not a finite number", word=error.word), body, error.word) from None
        if _has_more_values(value, MAX_VALUES):
            raise HTTPException(422, _("The body has more than {n} values. Send fewer.", n=MAX_VALUES))
        return value


def _has_more_values(value: Any, limit: int) -> bool:
    """Whether the objects and lists in a value have more members together; looks at no more than the limit of them."""
    unseen, count = [value], 0
    while unseen and count <= limit:
        members = unseen.pop()
        if isinstance(members, dict | list):
            count += len(members)
            if count <= limit:
                unseen.extend(members.values() if isinstance(members, dict) else members)
    return count > limit


def _invalid(why: str, body: bytes, where: str) -> json.JSONDecodeError:
    text = body.decode(errors="replace")
    return json.JSONDecodeError(why, text, max(0, text.find(where)))


class StrictRoute(APIRoute):
    """A route of the API: its handler gets a StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with the request replaced."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly
