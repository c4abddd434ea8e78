"""Strict JSON of request bodies: no NaN, no infinity, no key twice in an object, and a limited number of values."""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.core.i18n import _
from trainer.formats import strict_json

# In all objects and lists of a body, empty ones count twice: 1,000 messages have 3,000. Each wrong one costs the event
# loop about 6 µs, and parsing one 1 µs.
MAX_VALUES = 5_000
# What precedes each value but the first of all. Strings are matched so that their commas do not count.
_STRING_OR_BEGIN = re.compile(rb'"(?:[^"\\]++|\\(?:.|\Z))*+"?|[,\[{]', re.DOTALL)


class StrictRequest(Request):
    """A request whose JSON is parsed strictly."""

    async def json(self) -> Any:
        """The parsed body. Raises json.JSONDecodeError, which FastAPI answers with an error at the body, or 422."""
        body = await self.body()
        if _has_more_values(body, MAX_VALUES):
            raise HTTPException(422, _("The body has more than {n} values. Send fewer.", n=MAX_VALUES))
        try:
            return strict_json.loads(body)
        except strict_json.DuplicateKey as error:
            raise _invalid(_("the key {key} stands twice in an object", key=error.key[:80]), body, error.key) from None
        except (strict_json.InvalidConstant, strict_json.InfiniteNumber) as error:
            raise _invalid(_("{word} is not a finite number", word=error.word), body, error.word) from None


def _has_more_values(body: bytes, limit: int) -> bool:
    """Whether the objects and lists in a JSON text have more members together; looks at no more of them."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= limit:
        return False
    num_strings = num_begins = 0
    for match in _STRING_OR_BEGIN.finditer(body):
        is_string = match[0].startswith(b'"')
        num_strings += is_string
        num_begins += not is_string
        if num_begins > limit or num_strings > 2 * limit + 1:  # each value has a key, and may be a string
            return True
    return False


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
