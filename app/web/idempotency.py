"""Routes of the API that create something once per Idempotency-Key."""

import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

from anyio import to_thread
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.core import db, idempotency
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.idempotency import HEADER, RENEW_SECONDS, StoredAnswer
from app.core.installation_models import IdempotencyKey
from app.web import auth
from app.web.json_body import StrictRoute
from trainer.spec_errors import SpecError

REPEATABLE = (201, 202)  # statuses of what a POST creates or begins
# What leaves a request without any effect. After other errors nobody knows: the last statement may be a commit.
REFUSALS = (
    *(PanelError, SpecError, RequestValidationError, HTTPException, ClientDisconnect),
    *(IntegrityError, DataError, PoolTimeout),
)
LOST_AGAINST_OTHERS = {"40P01", "55P03"}  # SQLSTATEs of deadlock and lock_timeout

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ApiRoute(StrictRoute):
    """A route of the API: with strict JSON, and if it creates or begins something, with Idempotency-Key."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, which runs once per key."""
        handle = super().get_route_handler()
        if not takes_key(self):
            return handle
        right = auth.right_of(self)
        assert right is not None, f"{self.path} begins something for visitors"
        has_secret = _has_secret(self.response_model)

        async def handle_once(request: Request) -> Response:
            key = request.headers.get(HEADER)
            if key is None:
                return await handle(request)
            idempotency.check_key(key)
            principal = await to_thread.run_sync(auth.principal_with, request, right)
            address = f"{request.method} {request.url.path}?{request.url.query}"
            once = idempotency.KeyedRequest(principal.user_id, key, address)
            return await _answer_once(once, request, handle, has_secret)

        return handle_once


def takes_key(route: APIRoute) -> bool:
    """Whether a route is repeatable by this mechanism. The one that submits jobs keeps its keys with the jobs."""
    has_own = any(parameter.alias == HEADER.lower() for parameter in route.dependant.header_params)
    return route.methods == {"POST"} and route.status_code in REPEATABLE and not has_own


def _has_secret(model: Any) -> bool:
    fields = getattr(model, "model_fields", {})
    return any((field.json_schema_extra or {}).get("format") == "password" for field in fields.values())


async def _answer_once(once: idempotency.KeyedRequest, request: Request, handle: Handler, has_secret: bool) -> Response:
    earlier = await _stored(idempotency.reserve, once)
    body = HashedBody(request, lambda: _stored(idempotency.renew, once))
    if earlier is not None:
        await body.drain()
        return _repeated(earlier, once.fingerprint(body.sha256))
    try:
        response = await handle(Request(request.scope, body.receive))
        await body.drain()
    except Exception as error:
        if is_without_effect(error):
            await _stored(idempotency.release, once)
        raise
    text = None if has_secret else bytes(response.body).decode()
    answer = StoredAnswer(response.status_code, text, response.headers.get("location"))
    await _stored(idempotency.complete, once, once.fingerprint(body.sha256), answer)
    return response


def is_without_effect(error: Exception) -> bool:
    """Whether a request that ended with an error is certain to have changed nothing, so that it can be repeated."""
    return isinstance(error, REFUSALS) or (
        isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in LOST_AGAINST_OTHERS
    )


async def _stored(verb: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function of app/core/idempotency.py in a transaction of its own."""

    def run() -> Any:
        with db.transaction() as session:
            return verb(session, *arguments)

    return await to_thread.run_sync(run)


def _repeated(earlier: IdempotencyKey, fingerprint: str) -> Response:
    """The stored answer. Raises PanelError (409) for another request, and if the answer contained a secret."""
    if earlier.fingerprint != fingerprint:
        raise idempotency.conflict()
    if earlier.body is None:
        message = _(
            "The request with this Idempotency-Key was carried out. Its answer contained a secret, which is shown only "
            "once: if it is lost, delete what was created and use a new key."
        )
        raise PanelError(409, "answer_secret", message)
    headers = {"Location": earlier.location} if earlier.location else {}
    assert earlier.status is not None
    return Response(earlier.body, earlier.status, headers, media_type="application/json")


class HashedBody:
    """The body of a request, hashed while it is read. `renew` is called now and then while it arrives."""

    def __init__(self, request: Request, renew: Callable[[], Awaitable[Any]]) -> None:
        self._receive = request.receive
        self._renew = renew
        self._renewed_at = monotonic()
        self._hash = hashlib.sha256()
        self._is_complete = False

    @property
    def sha256(self) -> str:
        """Of what was read."""
        return self._hash.hexdigest()

    async def receive(self) -> Message:
        """The next part."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._hash.update(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            if monotonic() - self._renewed_at > RENEW_SECONDS:
                self._renewed_at = monotonic()
                await self._renew()
        return message

    async def drain(self) -> None:
        """Read it to its end. Raises ClientDisconnect."""
        while not self._is_complete:
            if (await self.receive())["type"] == "http.disconnect":
                raise ClientDisconnect
