"""The audit log: what is recorded, of whom and from where, who may read it, and how long it is kept."""

from datetime import timedelta
from typing import Any, get_args

import pytest
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from app.accounts import audit_pages
from app.core import audit_log, db
from app.core.account_models import GuessCount
from app.core.audit_models import MAX_TEXT, AuditEntry
from app.core.conversation_models import Conversation
from app.core.models import Corpus, ImportedModel, Tokenizer
from app.jobs.scheduling.sweep import Sweep
from app.launcher import password_reset
from app.playground.deployments import service as deployments
from tests import users
from tests.app.jobs import factories
from tests.users import PASSWORD, Person

NEW_PASSWORD = "four unrelated words here"
STEPS = {"max_steps": 4, "warmup_steps": 1}
PATH = "/api/v1/audit-log"


@pytest.fixture(scope="module")
def owner(database: str) -> Person:
    """An owner."""
    return users.enter("Olive", "owner")


@pytest.fixture
def olive(web: TestClient, owner: Person) -> TestClient:
    """The owner's browser; the log is empty."""
    client = users.client(web, cookie=owner.cookie())
    with db.transaction() as session:
        session.execute(delete(AuditEntry))
        session.execute(delete(GuessCount))
    return client


def entries(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    """What the log lists."""
    listed: list[dict[str, Any]] = client.get(PATH, params=query).json()["data"]
    return listed


def log_in(web: TestClient, name: str, password: str = PASSWORD) -> int:
    """The status of a login from a new browser."""
    return users.client(web).post("/api/v1/login", json={"name": name, "password": password}).status_code


def summary(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    return entry["user"], entry["action"], entry["subject"], entry["detail"]


def test_a_login_is_recorded_with_its_person_and_address(web: TestClient, olive: TestClient, owner: Person) -> None:
    assert log_in(web, "olive") == 204
    (entry,) = entries(olive)
    assert (entry["user"], entry["user_id"], entry["action"]) == ("Olive", owner.id, "login")
    assert (entry["address"], entry["num_times"]) == ("testclient", 1)


def test_failed_logins_are_counted_by_minute_and_account(
    web: TestClient, olive: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = db.now().replace(second=1)
    monkeypatch.setattr(audit_log.db, "now", lambda: now)
    for _number in range(3):
        assert log_in(web, "Olive", "wrong") == 401
    assert log_in(web, "secret typed as a name", "wrong") == 401
    listed = entries(olive, action="login_failed")
    assert [(entry["subject"], entry["num_times"], entry["user_id"]) for entry in listed] == [
        ("", 1, None),
        ("Olive", 3, None),
    ]
    assert "secret typed" not in olive.get(PATH).text
    assert "× 3" in " ".join(olive.get("/audit-log").text.split())


def test_a_flood_of_failed_logins_from_many_addresses_leaves_few_entries(olive: TestClient) -> None:
    for number in range(3 * audit_log.MAX_FAILURES):
        with db.transaction() as session, audit_log.from_address(f"10.0.0.{number}"):
            audit_log.record_failed_login(session, None, f"10.0.0.{number}/32")
    with db.transaction() as session:
        num_rows, total = session.execute(select(func.count(), func.sum(AuditEntry.num_times))).one()
    assert total == 3 * audit_log.MAX_FAILURES
    assert num_rows <= 2 * (audit_log.MAX_FAILURES + 1)  # in at most two minutes


def test_what_is_done_to_accounts_is_recorded(web: TestClient, olive: TestClient, owner: Person, database: str) -> None:
    created = olive.post("/api/v1/users", json={"name": "Paul", "password": PASSWORD, "role": "member"}).json()
    path = f"/api/v1/users/{created['id']}"
    assert olive.patch(path, json={"role": "viewer"}).status_code == 200
    assert olive.patch(path, json={"role": "viewer"}).status_code == 200  # the same: no change
    assert olive.post(f"{path}/disable").status_code == 200
    assert olive.post(f"{path}/enable").status_code == 200
    code = olive.post(f"{path}/password-reset").json()["link"].rpartition("=")[2]
    reset = {"code": code, "password": NEW_PASSWORD}
    paul = users.client(web)
    assert paul.post("/api/v1/password-reset", json=reset).status_code == 204
    change = {"present_password": NEW_PASSWORD, "password": PASSWORD}
    assert paul.post("/api/v1/me/password", json=change).status_code == 204
    password_reset.create_link("Paul")
    assert olive.delete(path, params={"data": "delete"}).status_code == 204
    assert [summary(entry) for entry in entries(olive)] == [
        ("Olive", "user_removed", "Paul", "delete"),
        ("", "reset_link_created", "Paul", ""),
        ("Paul", "password_changed", "", ""),
        ("Paul", "password_reset", "", ""),
        ("Olive", "reset_link_created", "Paul", ""),
        ("Olive", "user_enabled", "Paul", ""),
        ("Olive", "user_disabled", "Paul", ""),
        ("Olive", "role_changed", "Paul", "member → viewer"),
        ("Olive", "user_created", "Paul", "member"),
    ]
    assert code not in olive.get(PATH).text
    assert {entry["user"] for entry in entries(olive, person="PAUL")} == {"Olive", "Paul", ""}


def test_invitations_and_tokens_are_recorded(web: TestClient, olive: TestClient) -> None:
    for number in range(2):
        made = olive.post("/api/v1/invitations", json={"role": "viewer"}).json()
        code = made["link"].rpartition("=")[2]
        if number == 0:
            assert olive.delete(f"/api/v1/invitations/{made['id']}").status_code == 204
    accept = {"code": code, "name": "Quinn", "password": PASSWORD}
    assert users.client(web).post("/api/v1/invitations/accept", json=accept).status_code == 204
    token = olive.post("/api/v1/tokens", json={"name": "nightly", "scopes": ["read"]}).json()
    assert olive.delete(f"/api/v1/tokens/{token['id']}").status_code == 204
    assert [summary(entry) for entry in entries(olive)] == [
        ("Olive", "token_revoked", "nightly", ""),
        ("Olive", "token_created", "nightly", "read"),
        ("Quinn", "invitation_used", "viewer", "Olive"),
        ("Olive", "invitation_created", "viewer", ""),
        ("Olive", "invitation_revoked", "viewer", ""),
        ("Olive", "invitation_created", "viewer", ""),
    ]
    text = olive.get(PATH).text
    assert token["token"] not in text
    assert code not in text


def test_an_admin_who_cancels_the_job_of_another_user_is_named(
    web: TestClient, olive: TestClient, owner: Person
) -> None:
    other = users.enter("Rosa", "member")
    job_id = factories.submitted(other, factories.corpus(other), name="tale", **STEPS)
    own_id = factories.submitted(owner, factories.corpus(owner), name="own", **STEPS)
    factories.node()
    running_id, _fence = factories.started(other, factories.corpus(other), name="long tale", **STEPS)
    for one in (job_id, own_id, running_id, running_id):  # a running job can be cancelled again until it ends
        assert olive.post(f"/api/v1/everyones-jobs/{one}/cancel").status_code == 202
    assert [summary(entry) for entry in entries(olive)] == [
        ("Olive", "job_cancelled", "long tale", "Rosa"),
        ("Olive", "job_cancelled", "tale", "Rosa"),
    ]
    rosa = users.client(web, cookie=other.cookie())
    history = [entry["message"] for entry in rosa.get(f"/api/v1/jobs/{job_id}/history").json()["data"]]
    assert "Olive, who manages this installation, requested cancellation." in history
    assert rosa.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert summary(entries(olive)[0]) == ("Rosa", "job_deleted", "tale", "")


def test_other_changes_are_recorded_in_their_transaction(olive: TestClient, owner: Person) -> None:
    corpus_id = factories.corpus(owner, name="Tales")
    with db.transaction() as session:
        chat = Conversation(owner_id=owner.id, title="Metals", columns=[])
        session.add(chat)
    for _twice in range(2):  # the second time nothing changes
        assert olive.post(f"/api/v1/conversations/{chat.id}/share").is_success
    assert olive.post(f"/api/v1/conversations/{chat.id}/unshare").is_success
    job_id = factories.submitted(owner, corpus_id, name="user of the corpus", **STEPS)
    assert olive.delete(f"/api/v1/corpora/{corpus_id}").status_code == 409  # refused: not recorded
    assert olive.post(f"/api/v1/jobs/{job_id}/cancel").is_success
    assert olive.delete(f"/api/v1/corpora/{corpus_id}").status_code == 204
    endpoint = {"name": "teacher", "base_url": "https://example.com/v1", "model": "large", "api_key": "sesame"}
    made = olive.post("/api/v1/model-endpoints", json=endpoint).json()
    assert olive.put(f"/api/v1/model-endpoints/{made['id']}", json={**endpoint, "name": "tutor"}).is_success
    assert olive.delete(f"/api/v1/model-endpoints/{made['id']}").is_success
    with db.transaction() as session:
        assert session.get_one(Corpus, corpus_id).deleted_at is not None
    assert [summary(entry) for entry in entries(olive)] == [
        ("Olive", "endpoint_deleted", "tutor", "https://example.com/v1"),
        ("Olive", "endpoint_changed", "tutor", "https://example.com/v1"),
        ("Olive", "endpoint_created", "teacher", "https://example.com/v1"),
        ("Olive", "corpus_deleted", "Tales", ""),
        ("Olive", "conversation_unshared", "Metals", ""),
        ("Olive", "conversation_shared", "Metals", ""),
    ]
    assert "sesame" not in olive.get(PATH).text


def test_deployments_are_recorded(olive: TestClient, owner: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "model_path", lambda *_args: "path")
    created = olive.post("/api/v1/deployments", json={"name": "scribe", "model": "old"}).json()
    path = f"/api/v1/deployments/{created['id']}"
    for change in ({"requests_per_minute": 5, "model": "old"}, {"model": "new"}):
        assert olive.put(path, json=change).status_code == 200
    assert olive.delete(path).is_success
    assert [summary(entry)[1:] for entry in entries(olive)] == [
        ("deployment_deleted", "scribe", ""),
        ("deployment_moved", "scribe", "new"),
        ("deployment_changed", "scribe", "requests_per_minute"),
        ("deployment_created", "scribe", "old"),
    ]


def test_deleted_models_are_recorded(olive: TestClient, owner: Person) -> None:
    factories.node(slots=1)
    _job_id, checkpoint_id = factories.finished(owner, factories.corpus(owner), name="saga", **STEPS)
    with db.transaction() as session:
        model = ImportedModel(owner_id=owner.id, name="base", source="upload", state="ready")
        tokenizer = Tokenizer(owner_id=owner.id, name="pieces", source="import", state="ready", corpora=[])
        session.add_all([model, tokenizer])
    rows = (("checkpoints", checkpoint_id), ("models", model.id), ("tokenizers", tokenizer.id))
    for kind, row_id in rows:
        answer = olive.delete(f"/api/v1/{kind}/{row_id}")
        assert answer.is_success, answer.text
    assert [(*summary(entry)[1:], entry["subject_id"]) for entry in entries(olive)] == [
        ("tokenizer_deleted", "pieces", "", tokenizer.id),
        ("model_deleted", "base", "", model.id),
        ("checkpoint_deleted", "saga", "step 4", checkpoint_id),
    ]


def fill(owner: Person, num: int) -> None:
    """Add entries of the owner's."""
    for number in range(num):
        with db.transaction() as session, audit_log.from_address("10.1.2.3"):
            audit_log.record(session, "corpus_deleted", owner.principal, subject=f"corpus {number}")


def test_the_log_is_searched_and_paged(olive: TestClient, owner: Person) -> None:
    assert "Nothing yet" in olive.get("/audit-log").text
    fill(owner, 60)
    for query, num in (({"q": "CORPUS 5"}, 11), ({"q": "1.2.3"}, 60), ({"q": "%"}, 0), ({"action": "login"}, 0)):
        assert len(entries(olive, limit=200, **query)) == num, query
    assert len(entries(olive, limit=200, person="corpus 7")) == 1
    assert entries(olive, person="oliv") == []
    first = olive.get(PATH, params={"limit": 50}).json()
    rest = olive.get(PATH, params={"limit": 50, "after": first["next"]}).json()
    listed = first["data"] + rest["data"]
    assert {entry["subject"] for entry in listed} == {f"corpus {number}" for number in range(60)}
    assert [entry["id"] for entry in listed] == sorted((entry["id"] for entry in listed), reverse=True)
    assert rest["next"] is None
    page = olive.get("/audit-log", params={"person": "Olive", "action": "corpus_deleted"})
    assert page.text.count('data-label="Action">Deleted a corpus') == 50
    assert f"after={first['next']}" in page.text
    assert "person=Olive" in page.text.partition("more-link")[2]
    assert "No entry matches" in olive.get("/audit-log", params={"q": "nowhere", "action": ""}).text
    assert olive.get("/audit-log", params={"action": "nonsense"}).status_code == 422


def test_long_names_are_cut(olive: TestClient, owner: Person) -> None:
    with db.transaction() as session, audit_log.from_address("a" * 999):
        audit_log.record(session, "corpus_deleted", owner.principal, subject="s" * 999, detail="d" * 999)
    (entry,) = entries(olive)
    assert (len(entry["subject"]), len(entry["detail"]), len(entry["address"])) == (MAX_TEXT, MAX_TEXT, 64)


def test_entries_are_forgotten_after_a_year(olive: TestClient, owner: Person) -> None:
    fill(owner, 2)
    with db.transaction() as session:
        past = func.now() - audit_log.MEMORY - timedelta(seconds=1)
        session.execute(update(AuditEntry).where(AuditEntry.subject == "corpus 0").values(at=past))
    Sweep().step()
    assert [entry["subject"] for entry in entries(olive)] == ["corpus 1"]


@pytest.mark.parametrize(("role", "allowed"), [("viewer", False), ("member", False), ("admin", True)])
def test_only_those_who_manage_people_are_led_to_the_log(web: TestClient, role: str, allowed: bool) -> None:
    client = users.client(web, cookie=users.enter(f"Reader {role}", role).cookie())
    assert ('href="/audit-log"' in client.get("/nodes").text) == allowed
    assert client.get("/audit-log").status_code == (200 if allowed else 403)
    reading = users.enter(f"Program {role}", role).token("read")
    assert users.client(web, token=reading).get(PATH).status_code == 403  # addresses take the scope admin


def test_every_action_has_words() -> None:
    assert set(audit_pages.WORDS) == set(get_args(audit_log.Action))
