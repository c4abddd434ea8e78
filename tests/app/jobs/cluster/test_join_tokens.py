"""Join tokens: who creates them, what a machine gets for one, and that it gets it once."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from app.checkpoints import signature
from app.core import db, migrations, storage
from app.core.account_models import GuessCount, JoinToken
from app.core.models import Node
from app.core.principal import digest
from app.core.settings import settings
from app.jobs.cluster import join_tokens, node_configuration
from tests import users
from tests.app.jobs import factories
from tests.locks import until_one_waits
from tests.users import Person

PATH = "/api/v1/join-tokens"
ELSEWHERE = "203.0.113.7"
CLUSTER = {
    "database_url": "postgresql://athanor:word@db.example.com/athanor",
    "redis_url": "redis://:word@valkey.example.com:6379/0",
    "allowed_hosts": "panel.example.com",
}


@pytest.fixture(autouse=True)
def no_tokens(database: str) -> None:
    with db.transaction() as session:
        for table in (GuessCount, JoinToken, Node):
            session.execute(delete(table))


def point_to_cluster(monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    """Let the configuration of nodes be that of a cluster; the connections of this process stay."""
    cluster = settings().model_copy(update={**CLUSTER, **changed})
    monkeypatch.setattr(node_configuration, "settings", lambda: cluster)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation whose parts all machines reach."""
    point_to_cluster(monkeypatch)


def created(client: TestClient, **body: int) -> str:
    """The secret of a new token."""
    answer = client.post(PATH, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def join(
    web: TestClient, token: str, name: str = "gpu-2", address: str = "127.0.0.1", **changed: str
) -> httpx.Response:
    """The answer to a machine with this address that redeems a token."""
    machine = TestClient(web.app, base_url=users.ORIGIN, headers={"Accept-Language": "en"}, client=(address, 4000))
    machine.portal = web.portal
    body = {"token": token, "name": name, "revision": migrations.newest(), **changed}
    answer: httpx.Response = machine.post("/api/v1/nodes/join", json=body)
    return answer


def states(client: TestClient) -> list[tuple[str, str | None]]:
    return [(row["state"], row["node"]) for row in client.get(PATH).json()["data"]]


def test_a_machine_gets_what_a_node_needs_and_the_token_says_who_joined(web: TestClient, alice: TestClient) -> None:
    token = created(alice)
    assert states(alice) == [("unused", None)]
    answer = join(web, token)
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "database_url": settings().database_url,
            "redis_url": settings().redis_url,
            "data": str(storage.data()),
            "key_sha256": signature.key_sha256(),
            "files": {},
        },
    )
    assert states(alice) == [("used", "gpu-2")]
    entries = alice.get("/api/v1/audit-log").json()["data"][:2]
    assert [(entry["user"], entry["action"], entry["subject"], entry["address"]) for entry in entries] == [
        ("Alice", "node_joined", "gpu-2", "127.0.0.1"),
        ("Alice", "join_token_created", "", "testclient"),
    ]


def test_only_the_hash_of_a_token_is_stored(alice: TestClient) -> None:
    token = created(alice)
    with db.transaction() as session:
        stored = dict(session.execute(select(JoinToken.__table__)).mappings().one())
    assert stored["token_sha256"] == digest(token)
    assert token not in str(stored)
    assert token not in alice.get(PATH).text


def test_a_token_lasts_an_hour_or_as_long_as_it_says(alice: TestClient) -> None:
    created(alice)
    created(alice, minutes=5)
    with db.transaction() as session:
        spans = set(session.scalars(select(JoinToken.expires_at - JoinToken.created_at)))
    assert spans == {timedelta(hours=1), timedelta(minutes=5)}
    assert alice.post(PATH, json={"minutes": 24 * 60 + 1}).json()["errors"][0]["field"] == "minutes"


def test_wrong_used_revoked_old_and_orphaned_tokens_have_the_same_answer(web: TestClient, alice: TestClient) -> None:
    used, revoked, old, orphaned = (created(alice) for _n in range(4))
    assert join(web, used).status_code == 200
    demoted = users.enter("Demoted", "admin")
    with db.transaction() as session:
        ids = {row.token_sha256: row.id for row in session.scalars(select(JoinToken))}
        for token, values in ((old, {"expires_at": func.now()}), (orphaned, {"creator_id": demoted.id})):
            session.execute(update(JoinToken).where(JoinToken.id == ids[digest(token)]).values(**values))
    assert alice.delete(f"{PATH}/{ids[digest(revoked)]}").status_code == 204
    answers = [join(web, token).json() for token in ("wrong", used, revoked, old, orphaned)]
    assert (answers[0]["status"], answers[0]["code"]) == (403, "join_token_wrong")
    assert all({**answer, "request_id": ""} == {**answers[0], "request_id": ""} for answer in answers)
    assert sorted(states(alice)) == [("expired", None), ("unused", None), ("used", "gpu-2")]
    for token in (used, old):  # which only unused ones are
        assert alice.delete(f"{PATH}/{ids[digest(token)]}").status_code == 404


def test_of_two_uses_of_a_token_at_once_the_second_is_refused(web: TestClient, alice: TestClient) -> None:
    token = created(alice)
    with ThreadPoolExecutor() as pool, db.transaction() as first:
        join_tokens.redeem(first, secret=token, name="gpu-1", revision=migrations.newest(), is_local=True)
        first.flush()
        second = pool.submit(join, web, token)
        until_one_waits()
        first.commit()
        answer = second.result()
    assert (answer.status_code, answer.json()["code"]) == (403, "join_token_wrong")
    assert states(alice) == [("used", "gpu-1")]


def test_tokens_are_forgotten_a_week_after_they_expired(alice: TestClient) -> None:
    for days in (6, 8):
        created(alice)
        with db.transaction() as session:
            newest = select(func.max(JoinToken.id)).scalar_subquery()
            past = func.now() - timedelta(days=days)
            session.execute(update(JoinToken).where(JoinToken.id == newest).values(expires_at=past))
    created(alice)
    assert states(alice) == [("unused", None), ("expired", None)]


def test_wrong_tokens_are_limited_and_the_right_one_stays_valid(web: TestClient, alice: TestClient) -> None:
    token = created(alice)
    statuses = [join(web, f"ath_join_{number}").status_code for number in range(21)]
    assert statuses == [403] * 20 + [429]
    assert join(web, "wrong", address=ELSEWHERE).status_code == 403
    assert join(web, token).status_code == 200


def test_only_owners_create_list_and_revoke_tokens(web: TestClient, alice: TestClient) -> None:
    created(alice)
    token_id = alice.get(PATH).json()["data"][0]["id"]
    admin = users.client(web, cookie=users.enter("Ada", "admin").cookie())
    requests = (("POST", PATH), ("GET", PATH), ("DELETE", f"{PATH}/{token_id}"), ("POST", "/nodes"))
    answers = [admin.request(method, path, json={} if method == "POST" else None) for method, path in requests]
    assert {answer.status_code for answer in answers} == {403}
    assert "Only an owner" in answers[0].text
    assert "Add a machine" not in admin.get("/nodes").text
    assert states(alice) == [("unused", None)]


# ---- other machines -------------------------------------------------------------------------------------------------


def test_no_other_machine_gets_anything_of_an_installation_on_loopback(web: TestClient, alice: TestClient) -> None:
    token = created(alice)
    answer = join(web, token, address=ELSEWHERE)
    assert (answer.status_code, answer.json()["code"]) == (409, "join_unavailable")
    for name in ("ATHANOR_HOST", "DATABASE_URL", "REDIS_URL"):
        assert name in answer.json()["title"]
    assert settings().database_url not in answer.text
    assert join(web, token, address="::ffff:127.0.0.1").status_code == 200, "the token was not spent"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"allowed_hosts": "localhost"}, "ATHANOR_ALLOWED_HOSTS"),
        ({"allowed_hosts": "", "host": "0.0.0.0"}, "ATHANOR_ALLOWED_HOSTS"),
        ({"database_url": "postgresql://athanor:word@127.0.0.1/athanor"}, "DATABASE_URL"),
        ({"redis_url": "redis://[::1]:6379"}, "REDIS_URL"),
    ],
)
def test_one_part_on_loopback_is_enough_to_refuse_other_machines(
    web: TestClient, alice: TestClient, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], named: str
) -> None:
    point_to_cluster(monkeypatch, **changed)
    (sentence,) = node_configuration.obstacles()
    assert named in sentence
    answer = join(web, created(alice), address=ELSEWHERE)
    assert (answer.status_code, answer.json()["title"]) == (409, sentence)


@pytest.mark.usefixtures("cluster")
def test_another_machine_joins_a_cluster(web: TestClient, alice: TestClient) -> None:
    answer = join(web, created(alice), address=ELSEWHERE)
    assert answer.status_code == 200
    assert answer.json()["database_url"] == CLUSTER["database_url"]
    assert answer.json()["redis_url"] == CLUSTER["redis_url"]


def test_certificates_that_the_addresses_name_are_sent_along(
    web: TestClient, alice: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, key = tmp_path / "ca of db.pem", tmp_path / "key.pem"
    authority.write_text("authority")
    key.write_text("key")
    query = f"?sslmode=verify-full&sslrootcert={str(authority).replace(' ', '%20')}"
    urls = {
        "database_url": CLUSTER["database_url"] + query,
        "redis_url": f"rediss://:word@valkey.example.com/0?ssl_keyfile={key}&ssl_ca_certs={tmp_path}/none.pem",
    }
    point_to_cluster(monkeypatch, **urls)
    token = created(alice)
    unreadable = join(web, token, address=ELSEWHERE)
    assert (unreadable.status_code, "none.pem" in unreadable.json()["title"]) == (409, True)
    (tmp_path / "none.pem").write_text("other authority")
    answer = join(web, token, address=ELSEWHERE).json()
    texts = {"database_sslrootcert.pem": "authority", "broker_ssl_keyfile.pem": "key"}
    assert answer["files"] == {**texts, "broker_ssl_ca_certs.pem": "other authority"}
    here = {name: Path("/home/a b") / name for name in answer["files"]}
    url = node_configuration.with_files(answer["database_url"], here)
    assert (
        url == f"{CLUSTER['database_url']}?sslmode=verify-full&sslrootcert=%2Fhome%2Fa%20b%2Fdatabase_sslrootcert.pem"
    )
    system = f"{CLUSTER['database_url']}?sslrootcert=system"
    point_to_cluster(monkeypatch, database_url=system)
    assert join(web, created(alice), address=ELSEWHERE).json()["database_url"] == system


def test_names_of_nodes_that_are_online_or_no_names_are_refused(web: TestClient, alice: TestClient) -> None:
    token = created(alice)
    factories.node("ada")
    online = join(web, token, "ada")
    assert (online.status_code, online.json()["code"], "--name" in online.json()["title"]) == (409, "node_online", True)
    for name in ("", "-q", "a b", "a" * 64, "ä"):
        answer = join(web, token, name)
        assert (answer.status_code, answer.json()["code"]) == (422, "node_name_invalid")
    with db.transaction() as session:
        session.execute(update(Node).values(last_seen_at=func.now() - timedelta(hours=1)))
    assert join(web, token, "ada").status_code == 200, "a node that was away comes back"


def test_another_version_is_refused(web: TestClient, alice: TestClient) -> None:
    token = created(alice)
    answer = join(web, token, revision="0001")
    assert (answer.status_code, answer.json()["code"]) == (409, "version_differs")
    assert join(web, token).status_code == 200


# ---- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(web: TestClient, alice: TestClient) -> str:
    """The page with a new token."""
    return alice.post("/nodes").text


def test_the_page_shows_the_command_once_and_why_others_cannot_join(page: str, alice: TestClient) -> None:
    match = re.search(r'id="join-command">athanor join http://localhost (ath_join_[\w-]+)<', page)
    assert match is not None
    assert f"make join PANEL=http://localhost TOKEN={match[1]}" in page
    for shown in (page, alice.get("/nodes").text):
        assert "PostgreSQL is reached on this machine only: set DATABASE_URL" in shown
    assert match[1] not in alice.get("/nodes").text


@pytest.mark.usefixtures("cluster")
def test_the_page_says_which_address_and_protocol_the_command_needs(web: TestClient, alice: TestClient) -> None:
    at_localhost = alice.get("/nodes").text
    assert "replace http://localhost with" in at_localhost
    assert "panel.example.com" in at_localhost
    hints = {scheme: node_configuration.hints(f"{scheme}://panel.example.com") for scheme in ("http", "https")}
    assert [len(sentences) for sentences in hints.values()] == [1, 0]
    assert "--allow-http" in hints["http"][0]


def test_a_token_is_revoked_on_the_page(page: str, web: TestClient, alice: TestClient) -> None:
    renewed = page[page.index('id="join-tokens" data-module="refresh"') :].partition("\n</div>\n")[0]
    action = re.search(r'action="(/nodes/join-tokens/\w+/revoke)"', renewed)
    assert action is not None
    assert alice.post(action[1]).headers["location"] == "/nodes"
    assert states(alice) == []


def test_the_page_shows_the_node_that_joined(web: TestClient, alice: TestClient, alice_user: Person) -> None:
    join(web, created(alice), "gpu-3")
    assert "gpu-3 joined" in alice.get("/nodes").text
