"""Ends what a revoked credential still has open (streams, generations, downloads, uploads), and streams about what
their user may no longer see.

A request is authenticated once, when it begins. The credentials of all open requests of this process are looked up
again together, by one query every few seconds, and requests whose session or token is no longer accepted are cancelled.
Those that were not authenticated go on: somebody whose session has expired still sends its cookie when logging in.
A stream names its own condition (`end_unless`), which is looked up as often.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio import to_thread
from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import db
from app.core.errors import PanelError
from app.core.i18n import _
from app.web import auth
from app.web.auth import Credential
from app.web.errors import error_response

log = logging.getLogger(__name__)

RECHECK_SECONDS = 5.0  # 15 s is what the documentation promises


Condition = tuple[Callable[..., bool], *tuple[Hashable, ...]]  # a function of a database session, and its arguments


def end_unless(request: Request, *condition: *Condition) -> None:
    """End the answer to a request, which is a stream, soon after the condition is false.

    Requests with equal conditions share one look.
    """
    request.state.condition = condition


class OpenRequests:
    """The requests of this process that are being answered, by their credential."""

    def __init__(self) -> None:
        self._requests: dict[Credential, dict[anyio.CancelScope, Scope]] = {}

    @asynccontextmanager
    async def rechecked(self) -> AsyncIterator["OpenRequests"]:
        """Look the credentials up again every RECHECK_SECONDS inside the block."""
        task = asyncio.create_task(self._repeat())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    @contextmanager
    def entry(self, credential: Credential, scope: Scope) -> Iterator[anyio.CancelScope]:
        """A block of a request that is cancelled when the credential, once accepted, is so no longer."""
        with anyio.CancelScope() as cancellation:
            self._requests.setdefault(credential, {})[cancellation] = scope
            try:
                yield cancellation
            finally:
                del self._requests[credential][cancellation]
                if not self._requests[credential]:
                    del self._requests[credential]

    async def cancel_revoked(self) -> None:
        """Cancel the requests whose credential is no longer accepted or whose condition is false. None if the database
        cannot say.
        """
        credentials = list(self._requests)
        if not credentials:
            return
        scopes = [scope for requests in self._requests.values() for scope in requests.values()]
        conditions = {condition for scope in scopes if (condition := _condition(scope)) is not None}
        try:
            accepted, refused = await to_thread.run_sync(_look_up, credentials, conditions)
        except SQLAlchemyError as error:
            log.warning("credentials of open requests cannot be looked up: %s", error)
            return
        revoked = set(credentials) - accepted
        for credential, requests in self._requests.items():
            for cancellation, scope in requests.items():
                if _condition(scope) in refused or (credential in revoked and auth.accepted_user(scope) is not None):
                    cancellation.cancel()

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            await self.cancel_revoked()


def _condition(scope: Scope) -> Condition | None:
    condition: Condition | None = scope.get("state", {}).get("condition")
    return condition


def _look_up(credentials: list[Credential], conditions: set[Condition]) -> tuple[set[Credential], set[Condition]]:
    """The credentials that are accepted, and the conditions that are false."""
    with db.transaction() as session:
        is_true = {condition: condition[0](session, *condition[1:]) for condition in conditions}
        return auth.accepted(session, credentials), {condition for condition, true in is_true.items() if not true}


class RevocationMiddleware:
    """Registers each request that has a credential, and finishes the answer of one that is cancelled."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        credential = auth.credential_of(Request(scope)) if scope["type"] == "http" else None
        if credential is None:
            await self.app(scope, receive, send)
            return
        content_type: str | None = None  # once the answer has begun

        async def noting(message: Message) -> None:
            nonlocal content_type
            if message["type"] == "http.response.start":
                content_type = dict(message.get("headers", ())).get(b"content-type", b"").decode("latin-1")
            await send(message)

        with scope["app"].state.open_requests.entry(credential, scope) as cancellation:
            await self.app(scope, receive, noting)
        if cancellation.cancelled_caught:
            await _finish(content_type, scope, receive, send)


async def _finish(content_type: str | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse the request, or end its stream of events. Anything else that has begun stays visibly incomplete."""
    if content_type is None:
        error = PanelError(401, "not_logged_in", _("Log in, or send an API token."))
        await error_response(Request(scope), error)(scope, receive, send)
    elif content_type.startswith("text/event-stream"):
        await send({"type": "http.response.body", "body": b"", "more_body": False})
