"""Admission: few requests are worked on at once, and no client keeps the others waiting."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from app.web import admission
from app.web.admission import Admission, AdmissionMiddleware
from app.web.connections import CROWDED
from app.web.server import create_server
from tests.users import Person


class Requests:
    """Requests to an application that works on each until it is told to answer."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.app.state.admission = Admission()
        self.begun: list[str] = []  # names of the requests that are worked on or answered
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._finish: dict[str, asyncio.Event] = {}
        self._middleware = AdmissionMiddleware(self._work)

    def send(self, name: str, client: str, path: str = "/jobs") -> None:
        """Send a request from an address."""
        scope = {"type": "http", "path": path, "app": self.app, "state": {}, "client": (client, 1), "name": name}
        scope["headers"] = []
        self._finish[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._middleware(scope, receive, send))

    def finish(self, name: str) -> None:
        """Let a request be answered."""
        self._finish[name].set()

    async def answer(self, name: str) -> None:
        """Let a request be answered, and those begin whose turn it is then."""
        self.finish(name)
        await settled()

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        (self.refused if scope["state"].get(CROWDED) else self.begun).append(scope["name"])
        await self._finish[scope["name"]].wait()


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def send(message: Message) -> None:
    return None


async def settled() -> None:
    """Let everything run that is ready."""
    for _n in range(20):
        await asyncio.sleep(0)


def run(test: Callable[[Requests], Coroutine[Any, Any, None]]) -> None:
    async def with_requests() -> None:
        await test(Requests())

    asyncio.run(with_requests())


@pytest.fixture(autouse=True)
def no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ACTIVE_SECONDS", 60)
    monkeypatch.setattr(admission, "MAX_ACTIVE", 2)


def test_a_request_of_another_client_overtakes_all_but_one_of_those_that_wait() -> None:
    async def test(requests: Requests) -> None:
        for number in range(6):
            requests.send(f"flood {number}", "192.0.2.1")
        requests.send("other", "192.0.2.2")
        await settled()
        assert requests.begun == ["flood 0", "flood 1"]
        await requests.answer("flood 1")
        await requests.answer("flood 0")
        assert requests.begun == ["flood 0", "flood 1", "flood 2", "other"]

    run(test)


def test_requests_that_are_answered_at_once_are_not_all_answered_in_one_go() -> None:
    async def test(requests: Requests) -> None:
        for number in range(6):
            requests.send(f"quick {number}", "192.0.2.1")
            requests.finish(f"quick {number}")
        await asyncio.sleep(0)
        assert len(requests.begun) < 6
        await settled()
        assert len(requests.begun) == 6

    run(test)


def test_probes_do_not_wait() -> None:
    async def test(requests: Requests) -> None:
        for number in range(6):
            requests.send(f"flood {number}", "192.0.2.1")
        requests.send("probe", "192.0.2.1", "/livez")
        await settled()
        assert "probe" in requests.begun

    run(test)


def test_requests_do_not_wait_long_for_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ACTIVE_SECONDS", 0.01)

    async def test(requests: Requests) -> None:
        for number in range(6):
            requests.send(f"slow {number}", "192.0.2.1")
        async with asyncio.timeout(20):
            while len(requests.begun) < 6:
                await asyncio.sleep(0.01)

    run(test)


def test_requests_do_not_wait_for_the_end_of_a_stream() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def test(requests: Requests) -> None:
        requests._middleware = AdmissionMiddleware(stream)
        for number in range(2):
            requests.send(f"stream {number}", "192.0.2.1")
        await settled()
        requests._middleware = AdmissionMiddleware(requests._work)
        requests.send("page", "192.0.2.1")
        await settled()
        assert requests.begun == ["page"]

    run(test)


def test_a_request_that_is_cancelled_passes_its_turn_on() -> None:
    async def test(requests: Requests) -> None:
        for number in range(6):
            requests.send(f"request {number}", "192.0.2.1")
        await settled()
        requests.tasks["request 2"].cancel()
        await settled()
        await requests.answer("request 0")
        requests.tasks["request 1"].cancel()
        await settled()
        assert requests.begun == [f"request {number}" for number in (0, 1, 3, 4)]
        requests.app.state.admission._admit_next()
        requests.tasks["request 5"].cancel()  # it has its turn, but has not begun
        await settled()
        requests.send("next", "192.0.2.1")
        await settled()
        assert requests.begun[-1] == "next"

    run(test)


def test_requests_beyond_the_share_of_their_client_are_refused_and_those_of_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "MAX_OPEN", 5)

    async def test(requests: Requests) -> None:
        for number in range(6):
            requests.send(f"flood {number}", "192.0.2.1")
        requests.send("other", "192.0.2.2")
        await settled()
        assert requests.refused == ["flood 5"]
        await requests.answer("flood 0")
        requests.send("next", "192.0.2.1")
        await settled()
        assert requests.refused == ["flood 5"], "one has ended"

    run(test)


def test_streams_count_for_the_share_of_their_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_OPEN", 3)
    monkeypatch.setattr(admission, "ACTIVE_SECONDS", 0)

    async def test(requests: Requests) -> None:
        for number in range(4):
            requests.send(f"stream {number}", "192.0.2.1")
            await asyncio.sleep(0.01)
        assert requests.begun == ["stream 0", "stream 1", "stream 2"], "none waits any more"
        assert requests.refused == ["stream 3"]

    run(test)


def test_a_user_is_a_client_by_an_accepted_credential_and_never_by_an_invented_one(
    web: TestClient, alice: TestClient, alice_user: Person
) -> None:
    def client(request: Request) -> str:
        return str(web.app.state.admission.client(request))  # type: ignore[attr-defined]

    def request_of(cookie: str) -> Request:
        headers = [(b"cookie", f"athanor_session={cookie}".encode())]
        return Request({"type": "http", "headers": headers, "client": ("192.0.2.1", 1)})

    assert alice.get("/api/v1/me").status_code == 200
    assert client(request_of(alice.cookies["athanor_session"])) == alice_user.id
    assert client(request_of("invented")) == "192.0.2.1/32"


def test_collections_of_garbage_leave_out_what_the_server_loaded_and_are_seldom_full() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        return None

    async def start() -> None:
        server = create_server(application)
        server.config.host, server.config.port, server.config.lifespan = "127.0.0.1", 0, "off"
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup()
        await server.shutdown()

    before, thresholds = gc.get_freeze_count(), gc.get_threshold()
    asyncio.run(start())
    try:
        assert gc.get_freeze_count() > before + 10_000
        num_full = gc.get_stats()[2]["collections"]
        streams: list[list[int]] = [[] for _ in range(300_000)]  # as many objects as a thousand open streams have
        assert len(streams) == 300_000
        assert gc.get_stats()[2]["collections"] == num_full
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
