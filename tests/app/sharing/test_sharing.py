"""Sharing: others see and use what is shared with them, and change nothing of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.checkpoints import service as checkpoints
from app.core import db, storage
from app.core.models import Checkpoint, Corpus, Job
from app.core.share_models import Share
from app.corpora import service as corpora
from tests import statements, users
from tests.app.core.test_principal import WITH_ID, fingerprint
from tests.app.jobs import factories
from tests.app.trash.test_trash import KINDS, STEPS, stored_corpus, stored_model
from tests.routes import body_of, headers_of
from tests.users import Person

SHARES = "/api/v1/shares"


@pytest.fixture(scope="module")
def carol_user(alice_user: Person) -> Person:
    return users.enter("Carol", "member")


@pytest.fixture
def carol(web: TestClient, carol_user: Person) -> TestClient:
    return users.client(web, cookie=carol_user.cookie())


@pytest.fixture(scope="module", autouse=True)
def node(alice_user: Person, bob_user: Person) -> None:
    factories.node(slots=50)


@pytest.fixture(autouse=True)
def nothing_shared() -> Iterator[None]:
    yield
    with db.transaction() as session:
        for share in session.scalars(select(Share)):
            session.delete(share)


def share(client: TestClient, row_id: str, *names: str, everyone: bool = False) -> None:
    answer = client.put(f"{SHARES}/{row_id}", json={"users": names, "everyone": everyone})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"everyone": everyone, "users": sorted(names)}


def statuses(path: str, *clients: TestClient) -> list[int]:
    return [client.get(path).status_code for client in clients]


@pytest.mark.parametrize(("kind", "word", "create", "table"), KINDS)
def test_those_it_is_shared_with_see_it_and_others_do_not(
    alice: TestClient,
    bob: TestClient,
    carol: TestClient,
    alice_user: Person,
    kind: str,
    word: str,
    create: Any,
    table: type[Any],
) -> None:
    row_id = create(alice_user)
    for path in (f"/api/v1/{kind}/{row_id}", f"/{kind}/{row_id}"):
        assert statuses(path, bob, carol) == [404, 404]
        share(alice, row_id, "Bob")
        assert statuses(path, alice, bob, carol) == [200, 200, 404]
        share(alice, row_id, everyone=True)
        assert statuses(path, bob, carol) == [200, 200]
        share(alice, row_id)
        assert statuses(path, alice, bob, carol) == [200, 404, 404]


@pytest.mark.parametrize(("kind", "word", "create", "table"), KINDS)
def test_lists_say_who_shares_it_and_filter_by_owner(
    alice: TestClient, bob: TestClient, alice_user: Person, kind: str, word: str, create: Any, table: type[Any]
) -> None:
    row_id = create(alice_user)
    share(alice, row_id, "Bob")

    def ids(client: TestClient, **query: str) -> list[str]:
        return [entry["id"] for entry in client.get(f"/api/v1/{kind}", params=query).json()["data"]]

    assert [row_id in ids(bob), row_id in ids(bob, owner="shared"), row_id in ids(bob, owner="own")] == [
        True,
        True,
        False,
    ]
    assert [row_id in ids(alice, owner="shared"), row_id in ids(alice, owner="own")] == [False, True]
    (entry,) = [one for one in bob.get(f"/api/v1/{kind}").json()["data"] if one["id"] == row_id]
    assert entry["shared_by"] == "Alice"
    assert alice.get(f"/api/v1/{kind}/{row_id}").json()["shared_by"] is None
    page = bob.get(f"/{kind}", params={"owner": "shared"}).text
    assert row_id in page
    assert "shared by Alice" in page
    assert row_id not in bob.get(f"/{kind}", params={"owner": "own"}).text
    page = bob.get(f"/{kind}/{row_id}").text
    assert "Shared with you by Alice" in page
    assert f'action="/shares/{row_id}"' not in page


# What whoever sees a row may do with it: what they make of it is theirs.
USES = (
    *("/exports", "/evaluations", "/statistics", "/preview-cleaning", "/preview-split", "/record-generations"),
    *("/compare", "/plan", "/generate", "/playground"),
)
WRITES = [
    (method, path)
    for method, path in WITH_ID
    if method != "GET"
    and any(
        f"{{{name}}}" in path
        for name in ("corpus_id", "model_id", "tokenizer_id", "checkpoint_id", "job_id", "file_id")
    )
    and "everyones" not in path
    and not any(use in path for use in USES)
]


@pytest.fixture(scope="module")
def shared_ids(alice_user: Person, bob_user: Person) -> dict[str, str]:
    """Rows of Alice's that she shares with everyone."""
    ids = {f"{word}_id": create(alice_user) for _kind, word, create, _table in KINDS}
    return {**ids, "file_id": ids["corpus_id"], "mapping_id": ids["corpus_id"]}


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_nothing_of_it_is_changed_by_others(
    bob: TestClient, alice: TestClient, shared_ids: dict[str, str], method: str, path: str
) -> None:
    for row_id in set(shared_ids.values()):
        share(alice, row_id, everyone=True)
    before = fingerprint()
    address = path.format(**shared_ids, name="config.json", step=1)
    answer = bob.request(method, address, content=body_of(path), headers=headers_of(path))
    assert answer.status_code in (403, 404) or path == "/corpora/{corpus_id}/clean", answer.text  # an empty form: 422
    assert fingerprint() == before


def test_a_search_of_checkpoints_looks_up_no_jobs_that_the_user_may_not_see(
    alice: TestClient, alice_user: Person, bob_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_NAMED_JOBS", 1)
    _job_id, checkpoint_id = factories.finished(alice_user, factories.corpus(alice_user), name="ballad", **STEPS)
    for _n in range(3):
        factories.submitted(bob_user, factories.corpus(bob_user), name="ballad")
    with statements.record() as sent:
        answer = alice.get("/api/v1/checkpoints?q=ballad").json()
    assert [row["id"] for row in answer["data"]] == [checkpoint_id]
    lists = [text for text, _parameters in sent if text.startswith("SELECT checkpoint") and "job.name" in text]
    assert not lists, "it compares the names of jobs one by one"


def test_a_job_is_shared_with_its_checkpoints_and_a_checkpoint_without_its_job(
    alice: TestClient, bob: TestClient, alice_user: Person
) -> None:
    job_id, checkpoint_id = factories.finished(alice_user, factories.corpus(alice_user), name="saga", **STEPS)
    share(alice, checkpoint_id, "Bob")
    assert statuses(f"/api/v1/jobs/{job_id}", bob) == [404]
    page = bob.get(f"/checkpoints/{checkpoint_id}").text
    assert "saga" in page
    assert f'href="/jobs/{job_id}"' not in page
    assert [row["id"] for row in bob.get("/api/v1/checkpoints?q=saga").json()["data"]] == [checkpoint_id]
    share(alice, checkpoint_id)
    share(alice, job_id, "Bob")
    assert statuses(f"/api/v1/checkpoints/{checkpoint_id}", bob) == [200]
    assert f'href="/jobs/{job_id}"' in bob.get(f"/checkpoints/{checkpoint_id}").text
    assert statuses(f"/api/v1/jobs/{job_id}/samples", bob) == [200]


def test_the_text_of_a_shared_job_is_seen_with_its_corpus_only(
    alice: TestClient, bob: TestClient, alice_user: Person
) -> None:
    corpus_id = factories.corpus(alice_user, name="secret text")
    job_id, _checkpoint_id = factories.finished(alice_user, corpus_id, **STEPS)
    share(alice, job_id, "Bob")
    path = f"/api/v1/jobs/{job_id}/batches/1"
    assert bob.get(path).status_code == 404
    share(alice, corpus_id, "Bob")
    assert bob.get(path).json()["code"] == "batch_unprepared"  # as for Alice


def test_versions_are_shared_together(alice: TestClient, bob: TestClient, alice_user: Person) -> None:
    first, second = stored_corpus(alice_user), stored_corpus(alice_user)
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == second).values(lineage_id=first, version=2))
    share(alice, second, "Bob")
    assert statuses(f"/api/v1/corpora/{first}", bob) == [200]
    for corpus_id in (first, second):
        assert alice.delete(f"/api/v1/corpora/{corpus_id}").status_code == 204
    assert alice.delete("/api/v1/trash").status_code == 204
    with db.transaction() as session:
        assert session.scalars(select(Share)).all() == []


def test_a_shared_corpus_and_model_are_used_until_they_are_not_shared(
    alice: TestClient, bob: TestClient, alice_user: Person
) -> None:
    corpus_id = stored_corpus(alice_user)
    share(alice, corpus_id, "Bob")
    assert corpus_id in bob.get("/jobs/new").text
    body = {"corpora": [corpus_id], "name": "borrowed", **STEPS}
    job = bob.post("/api/v1/jobs", json=body)
    assert job.status_code == 201, job.text
    share(alice, corpus_id)
    assert bob.post("/api/v1/jobs", json=body).json()["code"] == "corpus_unknown"
    with db.transaction() as session:
        assert session.get_one(Job, job.json()["id"]).state == "queued"
    refused = alice.delete(f"/api/v1/corpora/{corpus_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "corpus_in_use")
    assert "borrowed" not in refused.text
    assert "Another user" in refused.json()["title"]
    assert bob.post(f"/api/v1/jobs/{job.json()['id']}/cancel").status_code == 202
    assert alice.delete(f"/api/v1/corpora/{corpus_id}").status_code == 204
    assert "secret" not in bob.get(f"/jobs/{job.json()['id']}").text


def test_a_shared_model_is_not_deployed_by_others(alice: TestClient, bob: TestClient, alice_user: Person) -> None:
    job_id, checkpoint_id = factories.finished(alice_user, factories.corpus(alice_user), **STEPS)
    with db.transaction() as session:
        storage.checkpoint(session.get_one(Checkpoint, checkpoint_id).path).mkdir(parents=True, exist_ok=True)
    share(alice, job_id, "Bob")
    answer = bob.post("/api/v1/deployments", json={"name": "borrowed", "model": checkpoint_id})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_owner"), answer.text


def test_what_is_in_the_trash_is_not_shared(alice: TestClient, bob: TestClient, alice_user: Person) -> None:
    model_id = stored_model(alice_user)
    share(alice, model_id, "Bob")
    assert alice.delete(f"/api/v1/models/{model_id}").status_code == 204
    assert bob.get(f"/api/v1/models/{model_id}").json()["code"] == "not_found"
    assert alice.post(f"/api/v1/trash/{model_id}/restore").status_code == 204
    assert statuses(f"/api/v1/models/{model_id}", bob) == [200]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"users": ["Nobody"]}, "user_unknown"),
        ({"users": ["x"] * 201}, "request_invalid"),
        ({"user": ["Bob"]}, "request_invalid"),
    ],
)
def test_wrong_requests_change_nothing(alice: TestClient, alice_user: Person, body: dict[str, Any], code: str) -> None:
    row_id = stored_model(alice_user)
    share(alice, row_id, "Bob")
    answer = alice.put(f"{SHARES}/{row_id}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert alice.get(f"{SHARES}/{row_id}").json() == {"everyone": False, "users": ["Bob"]}


def test_only_the_owner_shares_it_and_sees_with_whom(
    alice: TestClient, bob: TestClient, carol: TestClient, alice_user: Person
) -> None:
    row_id = stored_model(alice_user)
    share(alice, row_id, "Bob")
    for client, status in ((bob, 403), (carol, 404)):
        assert client.get(f"{SHARES}/{row_id}").status_code == status
        assert client.put(f"{SHARES}/{row_id}", json={"everyone": True}).status_code == status
        assert client.post(f"/shares/{row_id}", data={"everyone": "on"}).status_code == status
    with db.transaction() as session:
        corpora.install_samples(session)
    assert alice.put(f"{SHARES}/00songlyrics", json={"everyone": True}).json()["code"] == "corpus_shipped"


def test_the_page_shares_and_stops_sharing(alice: TestClient, bob: TestClient, alice_user: Person) -> None:
    row_id = stored_model(alice_user)

    def send(**fields: str) -> str:
        answer = alice.post(f"/shares/{row_id}", data=fields)
        assert answer.status_code == 303
        return alice.get(answer.headers["location"]).text

    assert "It is not shared." in alice.get(f"/models/{row_id}").text
    assert "1 person sees it." in send(add="bob")
    assert statuses(f"/models/{row_id}", bob) == [200]
    assert "There is no user “Nobody”." in send(add="Nobody")
    assert "Everyone of this installation sees it." in send(everyone="on")
    assert "1 person sees it." in send(everyone="off")
    assert "It is not shared." in send(remove="Bob")
    assert statuses(f"/models/{row_id}", bob) == [404]


def test_sharing_is_in_the_audit_log(alice: TestClient, alice_user: Person) -> None:
    row_id = stored_model(alice_user)
    share(alice, row_id, "Bob", everyone=True)
    (entry,) = alice.get("/api/v1/audit-log", params={"limit": 1}).json()["data"]
    assert (entry["action"], entry["subject"], entry["detail"]) == ("sharing_changed", "stored model", "everyone, Bob")
