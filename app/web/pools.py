"""Pools of threads of their own for requests that cost much, so that these wait for each other and not the rest."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from app.core.errors import PanelError
from app.core.i18n import _
from app.web.client_address import client_network

P = ParamSpec("P")
T = TypeVar("T")


def too_many_requests() -> PanelError:
    """The error for a request that finds no place."""
    message = _("Too many people are logging in at once. Try again in a moment.")
    return PanelError(429, "login_busy", message, headers={"Retry-After": "2"})


class Pool:
    """Threads with a bounded queue, of which each client has few places, so that nobody keeps the others out.

    A client is the user, or the network of a visitor. A request that finds no place is answered with `refusal`.
    """

    def __init__(
        self,
        num_threads: int,
        max_waiting: int,
        max_per_client: int,
        refusal: Callable[[], PanelError] = too_many_requests,
    ) -> None:
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="pool")
        self._max_requests = num_threads + max_waiting
        self._max_per_client = max_per_client
        self._refusal = refusal
        self._num_requests = Counter[str]()  # by client; changed in the event loop only

    def __call__(self, endpoint: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        """Decorate a route that has `principal` or `request` among its parameters: it runs in this pool."""

        @wraps(endpoint)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._place(_client(kwargs)):
                call = partial(copy_context().run, endpoint, *args, **kwargs)
                return await asyncio.get_running_loop().run_in_executor(self._executor, call)

        return run

    @contextmanager
    def _place(self, client: str) -> Iterator[None]:
        if self._num_requests.total() >= self._max_requests or self._num_requests[client] >= self._max_per_client:
            raise self._refusal()
        self._num_requests[client] += 1
        try:
            yield
        finally:
            self._num_requests[client] -= 1
            self._num_requests += Counter()  # forget clients without requests


def _client(parameters: dict[str, Any]) -> str:
    if "principal" in parameters:
        return str(parameters["principal"].user_id)
    return client_network(parameters["request"])
