"""Which requests are worked on: few at once, and those of the clients in turn.

What waits here costs nothing. Worked on all at once, a hundred requests would keep the event loop, and through their
threads the interpreter's lock, from every other client and from the probes, which never wait here.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web import auth
from app.web.auth import Credential
from app.web.client_address import client_network
from app.web.connections import CROWDED

PROBES = ("/livez", "/readyz", "/version")
MAX_ACTIVE = 4  # requests that are worked on at once
ACTIVE_SECONDS = 0.2  # until its response begins; what takes longer waits for something, and keeps nobody waiting
MAX_OPEN = 1_500  # requests of one client, whether they wait, are worked on or are streams; a third of the connections
MAX_USERS = 10_000  # whose credentials are remembered


class Admission:
    """Admits requests, at most MAX_ACTIVE at once. Where more wait, each client has one admitted in turn."""

    def __init__(self) -> None:
        self._num_active = 0
        self._num_open: Counter[str] = Counter()  # by client
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by client; the first client's turn is next
        self._users: dict[Credential, str] = {}  # the oldest first

    def client(self, request: Request) -> str:
        """Who sent a request: the user whose credential was accepted lately, or else a network.

        Nobody becomes another client by inventing a credential.
        """
        credential = auth.credential_of(request)
        user_id = self._users.get(credential) if credential is not None else None
        return user_id or client_network(request)

    def remember(self, request: Request) -> None:
        """Remember whose credential a request had, if it was accepted."""
        credential, user_id = auth.credential_of(request), auth.accepted_user(request.scope)
        if credential is None or user_id is None:
            return
        self._users.pop(credential, None)
        self._users[credential] = user_id
        if len(self._users) > MAX_USERS:
            del self._users[next(iter(self._users))]

    def is_full(self, client: str) -> bool:
        """Whether a client has so many open requests that another one must be refused."""
        return self._num_open[client] >= MAX_OPEN

    @contextmanager
    def counted(self, client: str) -> Iterator[None]:
        """A block of a request of this client, which is open meanwhile."""
        self._num_open[client] += 1
        try:
            yield
        finally:
            self._num_open[client] -= 1
            if not self._num_open[client]:
                del self._num_open[client]

    async def admit(self, client: str) -> "Turn":
        """Wait for the turn of a request of this client, which begins now."""
        if self._num_active < MAX_ACTIVE:
            self._num_active += 1
        else:
            await self._wait(client)
        return Turn(self._admit_next)

    async def _wait(self, client: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._admit_next()
            raise

    def _admit_next(self) -> None:
        while self._waiting:
            client = next(iter(self._waiting))
            turns = self._waiting.pop(client)
            turn = turns.popleft()
            if turns:
                self._waiting[client] = turns  # after the other clients
            if not turn.done():
                turn.set_result(None)
                return
        self._num_active -= 1


class Turn:
    """The time in which a request keeps others waiting: at most ACTIVE_SECONDS."""

    def __init__(self, admit_next: Callable[[], None]) -> None:
        self._admit_next: Callable[[], None] | None = admit_next
        self._timer = asyncio.get_running_loop().call_later(ACTIVE_SECONDS, self.end)

    def end(self) -> None:
        """Let the next request begin, once."""
        if self._admit_next is not None:
            self._timer.cancel()
            asyncio.get_running_loop().call_soon(self._admit_next)  # after what else is ready
            self._admit_next = None


class AdmissionMiddleware:
    """Lets each request wait for its turn, or marks it as one too many. Probes do not wait."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        admission: Admission = scope["app"].state.admission
        request = Request(scope)
        client = admission.client(request)
        if admission.is_full(client):
            scope["state"][CROWDED] = True
            await self.app(scope, receive, send)
            return
        with admission.counted(client):
            turn = await admission.admit(client)

            async def send_and_end(message: Message) -> None:
                turn.end()  # the rest may be a stream
                await send(message)

            try:
                await self.app(scope, receive, send_and_end)
            finally:
                turn.end()
        admission.remember(request)
