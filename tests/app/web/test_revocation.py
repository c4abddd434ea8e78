"""What a credential has open ends soon after the credential does."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, func, update
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.accounts import passwords
from app.core import db, storage
from app.core.account_models import ApiToken, LoginSession, User
from app.core.live import valkey
from app.web import auth, revocation
from app.web.auth import Credential
from tests import statements, users
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person
from tests.waiting import until

INTERVAL = revocation.RECHECK_SECONDS
MARGIN = 3  # seconds that a query on a busy machine may take


@pytest.fixture(scope="module", autouse=True)
def short_interval() -> Iterator[None]:
    """Credentials are looked up again at once instead of every few seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revocation, "RECHECK_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def job(alice_user: Person) -> tuple[str, int]:
    """The ID of a running job of Alice's, and its fence."""
    factories.node()
    return factories.started(alice_user, factories.corpus(alice_user), max_steps=4, warmup_steps=1)


@pytest.fixture(scope="module")
def checkpoint_id(job: tuple[str, int]) -> str:
    """A checkpoint of the job, with a directory but without weights."""
    checkpoint = saved_checkpoints.recorded(job[0], 4, job[1])
    storage.checkpoint(checkpoint.path).mkdir(parents=True, exist_ok=True)
    return checkpoint.id


ENDINGS: dict[str, Any] = {
    "the session is revoked": delete(LoginSession),
    "the session expires": update(LoginSession).values(expires_at=func.now()),
    "the token is revoked": update(ApiToken).values(revoked_at=func.now()),
    "the user is disabled": update(User).values(disabled_at=func.now()),
    "the user is removed": None,
}


def end(name: str, person: Person) -> None:
    statement = ENDINGS[name]
    with db.transaction() as session:
        if statement is None:
            session.delete(session.get_one(User, person.id))
        else:
            column = User.id if name == "the user is disabled" else statement.table.c.user_id
            session.execute(statement.where(column == person.id))


@contextmanager
def threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are not waited for: a stream that does not end would otherwise block the test that finds it."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)


def num_streams(web: TestClient) -> int:
    return len(web.app.state.hub._topics)  # type: ignore[attr-defined]


def num_viewers(web: TestClient) -> int:
    topics = web.app.state.hub._topics  # type: ignore[attr-defined]
    return sum(len(topic.viewers) for topic in topics.values())


def answered_after(
    request: Callable[[], httpx2.Response], is_open: Callable[[], object], change: Callable[[], None]
) -> httpx2.Response:
    """The answer to a request without an end, once a change has ended it."""
    with threads(1) as pool:
        answer = pool.submit(request)
        until(lambda: is_open() or answer.done(), what="an open request")
        assert not answer.done(), answer.result().text
        change()
        return answer.result(timeout=20)


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("path", ["/api/v1/jobs/{id}/events", "/jobs/{id}/events"])
def test_a_stream_of_a_job_ends_when(web: TestClient, name: str, path: str) -> None:
    person = users.enter(f"{name} {path}", "member")
    job_id, _fence = factories.started(person, factories.corpus(person), max_steps=4, warmup_steps=1)
    by_token = name == "the token is revoked"
    client = users.client(web, **({"token": person.token()} if by_token else {"cookie": person.cookie()}))
    answer = answered_after(
        lambda: client.get(path.format(id=job_id)), lambda: num_streams(web), lambda: end(name, person)
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert num_streams(web) == 0
    assert client.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/jobs/{id}/events", "/jobs/{id}/events"])
def test_a_stream_of_a_job_that_is_no_longer_shared_ends_and_its_owners_does_not(
    web: TestClient, alice_api: TestClient, job: tuple[str, int], path: str
) -> None:
    reader = users.client(web, token=users.enter(f"reader of {path}", "viewer").token())
    sharing = f"/api/v1/shares/{job[0]}"
    assert alice_api.put(sharing, json={"everyone": True}).status_code == 200
    with threads(2) as pool:
        answers = [pool.submit(client.get, path.format(id=job[0])) for client in (alice_api, reader)]
        until(lambda: num_viewers(web) == 2, what="both streams")
        alice_api.put(sharing, json={"everyone": False}).raise_for_status()
        assert answers[1].result(timeout=20).status_code == 200
        web.portal.call(web.app.state.open_requests.cancel_revoked)  # type: ignore[union-attr, attr-defined]
        assert (answers[0].done(), num_viewers(web)) == (False, 1)
        assert reader.get(path.format(id=job[0])).status_code == 404
        with db.transaction() as session:
            session.execute(delete(ApiToken))


def test_a_stream_of_a_valid_credential_stays_open(web: TestClient, alice_user: Person, job: tuple[str, int]) -> None:
    person = users.enter("Bob", "member")
    job_id, _fence = factories.started(person, factories.corpus(person), max_steps=4, warmup_steps=1)
    valid, revoked = users.client(web, token=alice_user.token()), users.client(web, token=person.token())
    with threads(2) as pool:
        answers = [
            pool.submit(client.get, f"/api/v1/jobs/{row_id}/events")
            for client, row_id in ((valid, job[0]), (revoked, job_id))
        ]
        until(lambda: num_streams(web) == 2, what="both streams")
        end("the token is revoked", person)
        until(answers[1].done, what="the end of the revoked stream")
        assert web.portal is not None
        web.portal.call(web.app.state.open_requests.cancel_revoked)  # type: ignore[attr-defined]
        assert (answers[0].done(), num_streams(web)) == (False, 1)
        end("the token is revoked", alice_user)


def num_waiting() -> int:
    return int(valkey().zcard("athanor:generate:waiting"))


@pytest.mark.parametrize("stream", [True, False])
def test_a_generation_ends_and_leaves_the_queue(
    web: TestClient, alice_user: Person, checkpoint_id: str, stream: bool
) -> None:
    body = {"checkpoint": checkpoint_id, "prompt": "Once", "stream": stream}
    client = users.client(web, token=alice_user.token())

    def request() -> httpx2.Response:
        return client.post("/api/v1/generate", json=body)

    answer = answered_after(request, num_waiting, lambda: end("the token is revoked", alice_user))
    assert answer.status_code == (200 if stream else 401)
    assert num_waiting() == 0


def test_a_download_that_is_cut_off_does_not_look_complete(web: TestClient, alice_user: Person) -> None:
    sent: list[dict[str, Any]] = []

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/zip")]})
        while True:
            await send({"type": "http.response.body", "body": b"...", "more_body": True})
            await revocation.asyncio.sleep(0.01)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    headers = [(b"authorization", f"Bearer {alice_user.token()}".encode())]
    scope = {"type": "http", "app": web.app, "headers": headers, "state": {"principal": alice_user.principal}}
    with threads(1) as pool:
        assert web.portal is not None
        portal = web.portal
        done = pool.submit(lambda: portal.call(revocation.RevocationMiddleware(endless), scope, receive, send))
        until(lambda: len(sent) > 1, what="the beginning of the download")
        end("the token is revoked", alice_user)
        done.result(timeout=20)
    assert all(message["more_body"] for message in sent[1:])


def test_logging_in_with_the_cookie_of_a_revoked_session_is_not_cancelled(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = users.enter("Bob at another browser", "member")
    cookie = person.cookie()
    end("the session is revoked", person)

    def verify(_password: str, _stored: str | None) -> bool:
        assert web.portal is not None
        web.portal.call(web.app.state.open_requests.cancel_revoked)  # type: ignore[attr-defined]
        return True

    monkeypatch.setattr(passwords, "verify_password", verify)
    answer = users.client(web, cookie=cookie).post("/api/v1/login", json={"name": person.name, "password": "..."})
    assert (answer.status_code, answer.text) == (204, "")


def test_credentials_are_looked_up_again_more_often_than_documented() -> None:
    assert 2 * INTERVAL + MARGIN <= 15


def test_statements_that_look_credentials_up_again_are_not_counted(alice_user: Person) -> None:
    """They may be sent beside the requests whose statements a test counts."""
    credentials = [Credential("session", "0" * 64), Credential("token", "0" * 64)]
    with statements.record() as queries, db.transaction() as session:
        assert auth.accepted(session, credentials) == set()
    assert queries == []
