"""Strict JSON of request bodies: without NaN and infinity, and without the same key twice."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.core.i18n import _
from trainer import strict_json


class StrictRequest(Request):
    """A request whose JSON is parsed strictly."""

    async def json(self) -> Any:
        """The parsed body. Raises json.JSONDecodeError, for which FastAPI answers with an error at the body."""
        body = await self.body()
        try:
            return strict_json.loads(body)
        except strict_json.DuplicateKey as error:
            raise _invalid(_("the key {key} stands twice in an object", key=error.key[:80]), body, error.key) from None
        except (strict_json.InvalidConstant, strict_json.InfiniteNumber) as error:
            raise _invalid(_("{word} is not a finite number", word=error.word), body, error.word) from None


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
