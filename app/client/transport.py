"""Requests to the server: authentication, repetition, errors as exceptions, server-sent events."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from . import errors
from .errors import ServerUnreachable, UnexpectedAnswer
from .language import _, language
from .shapes import Shape

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
CONNECTION_PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds before a request whose connection failed is repeated
PATIENCE_SECONDS = 60.0  # how long a request waits, in all, for a server that says when to come again
API = "/api/v1"
GUESSES = ("login_locked", "guesses_limited")  # codes of answers after which repeating would be a further guess

S = TypeVar("S", bound=Shape)
Body = Callable[[], Iterator[bytes]]  # answers the bytes of a body; called again when the request is repeated


class Transport:
    """A connection to one server with one API token."""

    def __init__(self, url: str, token: str, *, transport: httpx2.BaseTransport | None = None) -> None:
        headers = {"Accept-Language": language()}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.url = url.rstrip("/")
        timeout = _timeout(ANSWER_SECONDS)
        try:
            self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        except httpx2.InvalidURL as error:
            raise self.unreachable(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # ---- requests with one answer -----------------------------------------------------------------------------------

    def get(self, shape: type[S], path: str, **query: Any) -> S:
        """The answer to GET. Parameters that are None are left out."""
        return self._read(shape, self._request("GET", path, query))

    def post(self, shape: type[S], path: str, body: Mapping[str, Any] | None = None) -> S:
        """The answer to POST with a JSON body. It is sent with an Idempotency-Key, so that repeating it is safe."""
        return self._read(shape, self._request("POST", path, {}, json_body=body, headers=_key()))

    def post_once(self, shape: type[S], path: str, body: Mapping[str, Any]) -> S:
        """The answer to POST with a JSON body, for what must not be sent twice: a failed connection is not repeated."""
        return self._read(shape, self._request("POST", path, {}, json_body=body, pauses=()))

    def put(self, shape: type[S], path: str, body: Mapping[str, Any]) -> S:
        """The answer to PUT with a JSON body."""
        return self._read(shape, self._request("PUT", path, {}, json_body=body))

    def patch(self, shape: type[S], path: str, body: Mapping[str, Any]) -> S:
        """The answer to PATCH with JSON."""
        return self._read(shape, self._request("PATCH", path, {}, json_body=body))

    def command(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Send POST where the answer has no content."""
        self._request("POST", path, {}, json_body=body)

    def upload(self, shape: type[S], method: str, path: str, content: Body, size: int, **query: Any) -> S:
        """The answer to a request whose body is a file of `size` bytes."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        headers |= _key() if method == "POST" else {}
        return self._read(shape, self._request(method, path, query, content=content, headers=headers))

    def delete(self, path: str, **query: Any) -> None:
        """Send DELETE. If it is repeated because the connection broke, there may be nothing left to delete."""
        attempts = 0

        def send() -> httpx2.Response:
            nonlocal attempts
            attempts += 1
            response = self._http.delete(API + path, params=query)
            if not (attempts > 1 and response.status_code == httpx2.codes.NOT_FOUND):
                _raise_for_problem(response)
            return response

        self.repeated(send)

    def pages(self, shape: type[S], path: str, **query: Any) -> Iterator[S]:
        """All entries of a list; further pages are read when they are needed."""
        after: str | None = None
        while True:
            answer = self._request("GET", path, {**query, "after": after}).json()
            for entry in answer["data"]:
                yield self._parsed(shape, entry)
            after = answer["next"]
            if after is None:
                return

    def _read(self, shape: type[S], response: httpx2.Response) -> S:
        return self._parsed(shape, _json(response))

    def _parsed(self, shape: type[S], answer: Any) -> S:
        try:
            return shape.model_validate(answer)
        except ValidationError as error:
            sentence = _("The answer of {url} is not understood. Do client and server have the same version?")
            raise UnexpectedAnswer(sentence.format(url=self.url)) from error

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        *,
        json_body: Mapping[str, Any] | None = None,
        content: Body | None = None,
        headers: Mapping[str, str] | None = None,
        pauses: Sequence[float] | None = None,
    ) -> httpx2.Response:
        def send() -> httpx2.Response:
            response = self._http.request(
                method,
                API + path,
                params=_present(query),
                json=json_body,
                content=content() if content is not None else None,
                headers=headers,
            )
            _raise_for_problem(response)
            return response

        return self.repeated(send, pauses)

    def repeated(self, send: Callable[[], httpx2.Response], pauses: Sequence[float] | None = None) -> httpx2.Response:
        """The response of `send`, which is called again while the connection fails or the server says when to come.

        `pauses` are the seconds before each repetition of a failed connection, CONNECTION_PAUSES if None. Raises
        ServerUnreachable and ServerProblem.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        remaining = list(CONNECTION_PAUSES if pauses is None else pauses)
        while True:
            try:
                return send()
            except httpx2.TransportError as error:
                if not remaining:
                    raise self.unreachable(error) from error
                time.sleep(remaining.pop(0))
            except _ComeAgain as error:
                if time.monotonic() + error.seconds > deadline:
                    raise error.problem from None
                time.sleep(error.seconds)

    def unreachable(self, error: Exception) -> ServerUnreachable:
        """The exception for a failed connection."""
        sentence = _("{url} cannot be reached: {why}. Is the server running, and is the address right?")
        return ServerUnreachable(sentence.format(url=self.url, why=str(error) or type(error).__name__))

    # ---- streams ----------------------------------------------------------------------------------------------------

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        read_seconds: float = 60,
    ) -> Iterator[httpx2.Response]:
        """A response whose body is read piece by piece. Errors of its status raise ServerProblem.

        What raises httpx2.TransportError while the body is read is for the caller to repeat.
        """
        request = self._http.build_request(
            method, API + path, params=_present(query or {}), json=body, headers=headers, timeout=_timeout(read_seconds)
        )

        def send() -> httpx2.Response:
            response = self._http.send(request, stream=True)
            try:
                _raise_for_problem(response)
            except BaseException:
                response.close()
                raise
            return response

        response = self.repeated(send)
        try:
            yield response
        finally:
            response.close()

    @contextmanager
    def events(self, method: str, path: str, **options: Any) -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """The server-sent events of a response; `options` are those of `open`."""
        with self.open(method, path, **options) as response:
            yield iter(httpx2.EventSource(response, max_event_size=None))


class _ComeAgain(Exception):
    """An error response that says after how many seconds the request can be repeated."""

    def __init__(self, problem: errors.ServerProblem, seconds: float) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.seconds = seconds


def _raise_for_problem(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    response.read()
    problem = errors.problem(response.status_code, _json_or_none(response))
    retry_after = response.headers.get("retry-after", "")
    is_repeatable = problem.status in (429, 503) or problem.code == "idempotency_in_progress"
    if retry_after.isdecimal() and is_repeatable and problem.code not in GUESSES:
        raise _ComeAgain(problem, float(retry_after))
    raise problem


def _timeout(read_seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=read_seconds)


def _json(response: httpx2.Response) -> Any:
    answer = _json_or_none(response)
    if answer is None:
        raise UnexpectedAnswer(_("{url} is not the address of Athanor.", url=str(response.url)))
    return answer


def _json_or_none(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None


def _key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def _present(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value not in (None, "") and value != []}


def address(*parts: str) -> str:
    """A path below /api/v1. Its parts are escaped: an ID is whatever a user typed."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)
