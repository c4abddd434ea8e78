"""Floods: what costs much or waits long has a bounded place of its own; probes and other requests are answered."""

import ast
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from anyio import to_thread
from fastapi import Request
from httpx import Response
from starlette.testclient import TestClient

from app.accounts import passwords
from app.core import db
from app.core.errors import PanelError
from app.main import NUM_THREADS
from app.web import middleware, pools
from app.web.pools import Pool
from tests import users
from tests.app.jobs import factories
from tests.users import Person
from tests.waiting import until


@contextmanager
def flood(number: int, request: Callable[[], Response]) -> Iterator[list[Future[Response]]]:
    """Send a request from as many threads at once."""
    with ThreadPoolExecutor(number) as threads:
        yield [threads.submit(request) for _n in range(number)]


def assert_others_are_served(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json()["database"] == "ok"


@pytest.fixture
def slow_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Passwords are wrong, but that is said only once the event is set."""
    release = threading.Event()
    monkeypatch.setattr(passwords, "verify_password", lambda password, stored: release.wait(30) and False)
    yield release
    release.set()


def test_logins_beyond_the_queue_are_refused_and_others_are_served(
    web: TestClient, alice: TestClient, slow_hashes: threading.Event
) -> None:
    names = count()

    def log_in() -> Response:
        body = {"name": f"Visitor {next(names)}", "password": "not the password"}
        return users.client(web).post("/api/v1/login", json=body)

    with flood(40, log_in) as answers:
        until(lambda: sum(answer.done() for answer in answers) == 32, 20, "32 refusals")
        refused = [answer.result() for answer in answers if answer.done()]
        assert {answer.status_code for answer in refused} == {429}
        assert {answer.headers["Retry-After"] for answer in refused} == {"2"}
        assert_others_are_served(alice)
        assert alice.get("/jobs").status_code == 200
        slow_hashes.set()
    assert Counter(answer.result().status_code for answer in answers) == {429: 32, 401: 8}


def test_a_client_cannot_take_all_places_of_a_pool() -> None:
    pool = Pool(num_threads=1, max_waiting=5, max_per_client=2)
    with ExitStack() as stack:
        for client in ("one", "one", "other", "other", "third", "fourth"):
            stack.enter_context(pool._place(client))
        with pytest.raises(PanelError), pool._place("fifth"):
            pass
    with pool._place("one"), pool._place("one"), pytest.raises(PanelError), pool._place("one"):
        pass
    assert not pool._num_requests


def test_all_addresses_of_an_ipv6_network_are_one_client_of_a_pool() -> None:
    def client(host: str) -> str:
        return pools._client({"request": Request({"type": "http", "client": (host, 1)})})

    assert client("2001:db8::1") == client("2001:db8::2") != client("2001:db8:0:1::1")
    assert client("192.0.2.1") != client("192.0.2.2")


def test_every_route_that_hashes_does_so_in_the_pool(root: Path) -> None:
    for path in (root / "app/accounts/api.py", root / "app/accounts/pages.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and " access." in ast.unparse(node):
                assert "HASHING" in map(ast.unparse, node.decorator_list), f"{path}: {node.name}"


def test_hashes_outside_their_pool_never_wait() -> None:
    with ExitStack() as stack:
        for _n in range(passwords.PARALLEL_HASHES):
            stack.enter_context(passwords._hash_slot())
        with pytest.raises(PanelError) as refusal:
            passwords.hash_password("a password")
    assert refusal.value.status == 429


def test_a_locked_row_fails_requests_with_503_and_delays_no_probe(
    database: str, alice: TestClient, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    monkeypatch.setattr(db, "LOCK_SECONDS", 1)
    db.engine().dispose()
    with psycopg.connect(db.libpq_url()) as other:
        other.execute("SELECT 1 FROM job WHERE id = %s FOR UPDATE", [job_id])
        with flood(25, lambda: alice.post(f"/api/v1/jobs/{job_id}/cancel")) as answers:
            assert_others_are_served(alice)
            assert {answer.result().status_code for answer in answers} == {503}
        assert answers[0].result().json()["code"] == "busy"
        assert answers[0].result().headers["Retry-After"]


def test_an_exhausted_pool_of_connections_is_503_and_probes_have_their_own(
    alice: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.engine().pool, "_timeout", 0.1)
    with ExitStack() as stack:
        for _n in range(db.MAX_CONNECTIONS):
            stack.enter_context(db.engine().connect())
        answer = alice.get("/api/v1/me")
        assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "busy", "2")
        assert_others_are_served(alice)
    assert alice.get("/api/v1/me").status_code == 200


def test_too_many_requests_that_wait_for_a_thread_are_503(
    web: TestClient, alice: TestClient, slow_hashes: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_WAITING", 5)
    monkeypatch.setattr("app.jobs.service.list_jobs", lambda *args, **kwargs: (slow_hashes.wait(30), ([], None))[1])
    assert web.portal is not None
    with flood(NUM_THREADS + 5, lambda: alice.get("/api/v1/jobs")):
        until(lambda: web.portal.call(num_waiting) >= 5, 20, "requests that wait")  # type: ignore[union-attr]
        assert alice.get("/api/v1/jobs").status_code == 503
        assert alice.get("/livez").status_code == 200
        slow_hashes.set()


async def num_waiting() -> int:
    return to_thread.current_default_thread_limiter().statistics().tasks_waiting
