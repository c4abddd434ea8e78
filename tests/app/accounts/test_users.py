"""What the owner does with accounts: disable, enable, reset the password, remove."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from app.accounts import removal
from app.accounts import service as accounts
from app.core import db, deleted_directories, storage
from app.core.account_models import GuessCount, PasswordReset, User
from app.core.conversation_models import Conversation
from app.core.deployment_models import Deployment
from app.core.models import BackgroundTask, Corpus, ImportedModel, Job, Tokenizer
from app.corpora import service as corpora
from app.jobs.scheduling.sweep import Sweep
from app.launcher import password_reset
from app.tokenizers import service as tokenizers_service
from tests import users
from tests.app.jobs import factories, saved_checkpoints
from tests.locks import until_one_waits
from tests.users import PASSWORD, Person
from tests.waiting import until

NEW = "another furnace entirely"
STEPS = {"max_steps": 4, "warmup_steps": 1}


@pytest.fixture(autouse=True)
def unlocked(database: str) -> None:
    with db.transaction() as session:
        session.execute(delete(GuessCount))


@pytest.fixture
def carol(request: pytest.FixtureRequest, alice_user: Person) -> Person:
    """A member of the test's own."""
    return users.enter(re.sub(r"^test_|[^a-z_]", "", request.node.name)[:34], "member")


def page_of(person: Person) -> str:
    return f"/account/people/{person.id}"


# ---- disable and enable ---------------------------------------------------------------------------------------------


def test_a_disabled_user_is_refused_everywhere_at_once_and_their_jobs_keep_running(
    web: TestClient, alice: TestClient, carol: Person
) -> None:
    browser, program = users.client(web, cookie=carol.cookie()), users.client(web, token=carol.token())
    factories.node()
    job_id, _fence = factories.started(carol, factories.corpus(carol), **STEPS)
    answer = alice.post(f"/api/v1/users/{carol.id}/disable")
    assert (answer.status_code, answer.json()["disabled_at"] is not None) == (200, True)
    assert [client.get("/api/v1/me").status_code for client in (browser, program)] == [401, 401]
    login = users.client(web).post("/api/v1/login", json={"name": carol.name, "password": PASSWORD})
    assert (login.status_code, login.json()["title"]) == (401, "Wrong name or password.")
    with db.transaction() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.desired) == ("starting", "run")


def test_an_enabled_user_has_the_password_and_the_tokens_of_before_but_no_session(
    web: TestClient, alice: TestClient, carol: Person
) -> None:
    browser, program = users.client(web, cookie=carol.cookie()), users.client(web, token=carol.token())
    disabled = alice.post(f"{page_of(carol)}/disable")
    assert disabled.headers["location"] == f"{page_of(carol)}?done=disabled"
    assert "Jobs that run keep running." in alice.get(disabled.headers["location"]).text
    assert alice.post(f"{page_of(carol)}/enable").headers["location"] == f"{page_of(carol)}?done=enabled"
    assert [client.get("/api/v1/me").status_code for client in (browser, program)] == [401, 200]
    assert users.client(web).post("/api/v1/login", json={"name": carol.name, "password": PASSWORD}).status_code == 204


@pytest.mark.parametrize("verb", ["disable", "remove"])
def test_the_last_owner_is_neither_disabled_nor_removed(alice: TestClient, alice_user: Person, verb: str) -> None:
    path = f"/api/v1/users/{alice_user.id}"
    answer = alice.post(f"{path}/disable") if verb == "disable" else alice.delete(path, params={"data": "delete"})
    assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
    body = {"data": "delete", "confirmation": alice_user.name}
    page = alice.post(f"{page_of(alice_user)}/{verb}", data=body)
    assert page.status_code == 409
    assert "Alice is the only owner." in page.text


def test_of_two_owners_who_disable_each_other_one_stays(web: TestClient, alice_user: Person) -> None:
    other = users.enter("Second owner", "owner")
    pairs = [(alice_user, other), (other, alice_user)]
    clients = [(users.client(web, cookie=actor.cookie()), target) for actor, target in pairs]
    threads = [
        threading.Thread(target=client.post, args=(f"/api/v1/users/{target.id}/disable",)) for client, target in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.transaction() as session:
        owners = session.scalars(select(User).where(User.role == "owner", User.disabled_at.is_(None))).all()
        assert len(owners) == 1
        session.execute(update(User).where(User.id == alice_user.id).values(disabled_at=None))
        session.execute(update(User).where(User.id == other.id).values(role="member"))


def test_of_two_owners_who_change_each_other_the_second_waits(alice_user: Person) -> None:
    other = users.enter("Another owner", "owner")
    with db.transaction() as first:
        accounts.managed_user(first, principal=alice_user.principal, user_id=other.id)
        with db.transaction() as second:
            second.execute(text("SET LOCAL lock_timeout = 50"))
            with pytest.raises(OperationalError, match="lock timeout"):
                accounts.managed_user(second, principal=other.principal, user_id=alice_user.id)
            second.rollback()
    with db.transaction() as session:
        session.execute(delete(User).where(User.id == other.id))


@pytest.mark.parametrize("path", ["/api/v1/users/{}", "/account/people/{}"])
def test_a_member_sees_no_user_not_even_oneself(bob: TestClient, bob_user: Person, path: str) -> None:
    assert bob.get(path.format(bob_user.id)).status_code == 403


# ---- reset the password ---------------------------------------------------------------------------------------------


def reset_code(alice: TestClient, person: Person) -> str:
    answer = alice.post(f"/api/v1/users/{person.id}/password-reset")
    assert answer.status_code == 201
    return str(answer.json()["link"].partition("?code=")[2])


def test_a_reset_link_lets_a_user_choose_a_password_once_and_ends_all_sessions(
    web: TestClient, alice: TestClient, carol: Person
) -> None:
    browser, program = users.client(web, cookie=carol.cookie()), users.client(web, token=carol.token())
    text = alice.post(f"{page_of(carol)}/password-reset").text
    link = re.search(r'id="link">http://localhost(/reset-password\?code=[\w-]+)<', text)
    assert link is not None
    visitor = users.client(web)
    assert 'type="hidden" name="code"' in visitor.get(link[1]).text
    body = {"code": link[1].partition("=")[2], "password": NEW, "revoke_tokens": "true"}
    weak = visitor.post("/reset-password", data={**body, "password": "password12"})
    assert (weak.status_code, "easy to guess" in weak.text) == (422, True)
    assert visitor.post("/reset-password", data=body).headers["location"] == "/account?done=password"
    assert visitor.get("/api/v1/me").json()["name"] == carol.name
    assert [client.get("/api/v1/me").status_code for client in (browser, program)] == [401, 401]
    again = visitor.post("/reset-password", data=body)
    assert (again.status_code, "This link is not valid" in again.text) == (403, True)


def test_wrong_used_and_old_codes_have_the_same_answer(web: TestClient, alice: TestClient, carol: Person) -> None:
    used, replaced, old = (reset_code(alice, carol) for _n in range(3))
    visitor = users.client(web)
    with db.transaction() as session:
        past = update(PasswordReset).values(expires_at=func.now() - timedelta(seconds=1))
        session.execute(past.where(PasswordReset.user_id == carol.id))
        assert used != replaced
    answers = [
        visitor.post("/api/v1/password-reset", json={"code": code, "password": NEW})
        for code in ("wrong", used, replaced, old)
    ]
    bodies = [{**answer.json(), "request_id": ""} for answer in answers]
    assert (bodies[0]["status"], bodies[0]["code"]) == (403, "reset_code_wrong")
    assert all(body == bodies[0] for body in bodies)


def test_of_two_uses_of_a_reset_link_at_once_the_second_is_refused(
    web: TestClient, visitor: TestClient, alice: TestClient, carol: Person
) -> None:
    body = {"code": reset_code(alice, carol), "password": NEW}
    with ThreadPoolExecutor() as pool, db.transaction() as first:
        first.scalar(select(PasswordReset).where(PasswordReset.user_id == carol.id).with_for_update())
        second = pool.submit(visitor.post, "/api/v1/password-reset", json=body)
        until_one_waits()
        first.execute(delete(PasswordReset).where(PasswordReset.user_id == carol.id))
        first.commit()
        answer = second.result()
    assert (answer.status_code, answer.json()["code"]) == (403, "reset_code_wrong")


def test_a_new_role_ends_the_reset_link_of_who_may_not_manage_it(
    web: TestClient, visitor: TestClient, alice: TestClient, carol: Person
) -> None:
    admin = users.client(web, cookie=users.enter("Adele", "admin").cookie())
    code = reset_code(admin, carol)
    assert alice.patch(f"/api/v1/users/{carol.id}", json={"role": "owner"}).status_code == 200
    answer = visitor.post("/api/v1/password-reset", json={"code": code, "password": NEW})
    assert (answer.status_code, answer.json()["code"]) == (403, "reset_code_wrong")
    assert alice.patch(f"/api/v1/users/{carol.id}", json={"role": "member"}).status_code == 200


def test_guesses_of_reset_codes_are_limited_and_the_right_one_stays_valid(
    web: TestClient, alice: TestClient, carol: Person
) -> None:
    code, visitor = reset_code(alice, carol), users.client(web)
    statuses = [
        visitor.post("/api/v1/password-reset", json={"code": str(number), "password": NEW}).status_code
        for number in range(21)
    ]
    assert statuses == [403] * 20 + [429]
    assert visitor.post("/api/v1/password-reset", json={"code": code, "password": NEW}).status_code == 204


def test_a_reset_link_unlocks_the_name(web: TestClient, alice: TestClient, carol: Person) -> None:
    visitor = users.client(web)
    body = {"name": carol.name, "password": "wrong"}
    assert [visitor.post("/api/v1/login", json=body).status_code for _n in range(6)] == [401] * 5 + [429]
    reset_code(alice, carol)
    assert visitor.post("/api/v1/login", json={**body, "password": PASSWORD}).status_code == 204


def test_a_disabled_user_gets_no_reset_link_and_one_from_before_stops_working(
    web: TestClient, alice: TestClient, carol: Person
) -> None:
    code = reset_code(alice, carol)
    alice.post(f"/api/v1/users/{carol.id}/disable")
    refused = alice.post(f"/api/v1/users/{carol.id}/password-reset")
    assert (refused.status_code, refused.json()["code"]) == (409, "user_disabled")
    assert "Enable the account first." in alice.post(f"{page_of(carol)}/password-reset").text
    alice.post(f"/api/v1/users/{carol.id}/enable")
    body = {"code": code, "password": NEW}
    assert users.client(web).post("/api/v1/password-reset", json=body).status_code == 403


def test_the_command_prints_a_link_for_an_owner_who_is_locked_out(web: TestClient, carol: Person) -> None:
    link = password_reset.create_link(carol.name.upper())
    body = {"code": link.partition("?code=")[2], "password": NEW}
    assert users.client(web).post("/api/v1/password-reset", json=body).status_code == 204


# ---- remove ---------------------------------------------------------------------------------------------------------


def add_data(person: Person, sha256: str = "7" * 64) -> list[Path]:
    """Give a user a row of each kind, with a job that runs, and the directories of those that have one."""
    factories.node(slots=9)
    corpus_id = factories.corpus(person)
    job_id, fence = factories.started(person, corpus_id, **STEPS)
    checkpoint_id = saved_checkpoints.recorded(job_id, 4, fence).id
    with db.transaction() as session:
        tokenizer = tokenizers_service.record_tokenizer(
            session, owner_id=person.id, name="t", vocab_size=9, sha256=sha256, corpora=[corpus_id]
        )
        model = ImportedModel(owner_id=person.id, name="m", source="upload", state="ready")
        task = BackgroundTask(owner_id=person.id, checkpoint_id=checkpoint_id, kind="export", state="succeeded")
        named = {"name": person.name, "name_key": person.id}
        deployment = Deployment(owner_id=person.id, model_id=checkpoint_id, path="nowhere", **named)
        session.add_all([model, task, deployment, Conversation(owner_id=person.id, columns=[])])
        session.get_one(Job, job_id).tokenizer_id = tokenizer.id
        session.flush()
        ids = {"corpus": corpus_id, "tokenizer": tokenizer.id, "base_model": model.id, "job": job_id}
        directories = [removal.DIRECTORIES[table](row_id) for table, row_id in ids.items()]
        directories.append(storage.background_task(task.id))
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
    return directories


def finish_jobs(person: Person) -> None:
    with db.transaction() as session:
        for state in ("cancelling", "cancelled"):
            session.execute(update(Job).where(Job.owner_id == person.id).values(state=state))


def num_rows(person: Person) -> int:
    with db.transaction() as session:
        owned = [select(func.count()).where(table.c.owner_id == person.id) for table in removal.owned_tables()]
        return sum(session.scalar(query) or 0 for query in owned)


def test_every_table_with_an_owner_is_known_and_has_its_directory(web: TestClient) -> None:
    names = {table.name for table in removal.owned_tables()}
    assert {"job", "corpus", "checkpoint", "background_task"} <= names
    # A checkpoint lies in the directory of its job; conversations, deployments, keys and the like have no files.
    without = {"checkpoint", "conversation", "deployment", "hyperparameter_search", "idempotency_key", "submission"}
    assert names - set(removal.DIRECTORIES) == without | {
        "webhook_endpoint",
        "model_endpoint",
        "named_mapping",
        "job_preset",
        "record_generation",
        "share",
    }


def test_a_removed_user_is_gone_with_rows_and_files(web: TestClient, alice: TestClient, carol: Person) -> None:
    directories = add_data(carol)
    browser = users.client(web, cookie=carol.cookie())
    busy = alice.post(f"{page_of(carol)}/remove", data={"data": "delete", "confirmation": carol.name})
    assert (busy.status_code, "has unfinished jobs or tasks: 1" in busy.text) == (409, True)
    finish_jobs(carol)
    typo = alice.post(f"{page_of(carol)}/remove", data={"data": "delete", "confirmation": "Bob"})
    assert (typo.status_code, "This is not the name of the account." in typo.text) == (422, True)
    assert (num_rows(carol) > 5, all(path.is_dir() for path in directories)) == (True, True)
    body = {"data": "delete", "confirmation": carol.name.upper()}
    assert alice.post(f"{page_of(carol)}/remove", data=body).headers["location"] == "/account/people?done=removed"
    swept = Sweep()
    until(lambda: not swept.step(), what="an end of the sweep")
    assert (num_rows(carol), [path for path in directories if path.exists()]) == (0, [])
    assert browser.get("/api/v1/me").status_code == 401
    assert alice.get(f"/api/v1/users/{carol.id}").status_code == 404


def test_a_removal_can_transfer_everything_to_the_owner_while_jobs_run(
    alice: TestClient, alice_user: Person, carol: Person
) -> None:
    sha256 = "8" * 64
    with db.transaction() as session:
        same = tokenizers_service.record_tokenizer(
            session, owner_id=alice_user.id, name="hers", vocab_size=9, sha256=sha256, corpora=[]
        )
    directories = add_data(carol, sha256)
    with db.transaction() as session:
        job = session.scalars(select(Job).where(Job.owner_id == carol.id)).one()
        job.idempotency_key = "the same key"
        job.spec = job.spec.model_copy(update={"tokenizer": job.tokenizer_id})
    missing = alice.delete(f"/api/v1/users/{carol.id}")
    assert (missing.status_code, missing.json()["code"]) == (422, "choice_missing")
    before = num_rows(alice_user)
    num_moved = num_rows(carol) - 1  # the tokenizer exists already
    assert alice.delete(f"/api/v1/users/{carol.id}", params={"data": "transfer"}).status_code == 204
    assert (num_rows(alice_user) - before, num_rows(carol)) == (num_moved, 0)
    with db.transaction() as session:
        moved = session.get_one(Job, job.id)
        assert (moved.state, moved.idempotency_key, moved.tokenizer_id) == ("starting", None, same.id)
        assert moved.spec.tokenizer == same.id
        assert session.scalars(select(Tokenizer).where(Tokenizer.sha256 == sha256)).one().id == same.id
    with db.transaction() as session:
        noted = [path for path in directories if deleted_directories.is_noted(session, path)]
    assert noted == [directories[1]], "the second one is that of the tokenizer"
    assert alice.get(f"/api/v1/jobs/{job.id}").status_code == 200
    finish_jobs(alice_user)


def test_an_owner_cannot_remove_their_own_account(web: TestClient, alice_user: Person) -> None:
    owner = users.enter("Third owner", "owner")
    answer = users.client(web, cookie=owner.cookie()).delete(f"/api/v1/users/{owner.id}", params={"data": "delete"})
    assert (answer.status_code, answer.json()["code"]) == (409, "own_account")
    with db.transaction() as session:
        session.execute(update(User).where(User.id == owner.id).values(role="member"))


def test_what_a_user_has_is_counted_for_the_owner(alice: TestClient, carol: Person) -> None:
    add_data(carol)
    answer = alice.get(f"/api/v1/users/{carol.id}").json()
    counts = {name: value for name, value in answer.items() if name.startswith("num_")}
    names = ("checkpoints", "conversations", "corpora", "deployments", "jobs", "models", "tokenizers", "unfinished")
    assert counts == {f"num_{name}": 1 for name in names}
    assert "<dt>Deployments</dt><dd>1</dd>" in alice.get(page_of(carol)).text


def test_a_row_that_is_added_while_its_user_is_removed_is_a_conflict(
    web: TestClient, alice: TestClient, carol: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = users.client(web, token=carol.token())
    create = corpora.create_corpus

    def late(*args: object, **values: object) -> Corpus:
        assert alice.delete(f"/api/v1/users/{carol.id}", params={"data": "delete"}).status_code == 204
        return create(*args, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(corpora, "create_corpus", late)
    answer = program.post("/api/v1/corpora", params={"filename": "late.txt"}, content=b"too late")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


# ---- the list -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed(database: str) -> list[str]:
    """The names of 53 members and of a viewer that is disabled, newest first."""
    people = [users.enter(f"Listed {number:02}", "member") for number in range(53)]
    people.append(users.enter("listed viewer", "viewer"))
    with db.transaction() as session:
        session.execute(update(User).where(User.id == people[-1].id).values(disabled_at=func.now()))
    return [person.name for person in reversed(people)]


def names_on(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/account/people/\w+">([^<]*)</a>', page)


def test_the_page_of_people_shows_all_of_them_page_by_page(alice: TestClient, listed: list[str]) -> None:
    first = alice.get("/account/people?q=LISTED").text
    further = re.search(r'href="(/account/people\?q=LISTED&amp;after=\w+)"', first)
    assert further is not None
    last = alice.get(further[1].replace("&amp;", "&")).text
    assert (names_on(first), names_on(last)) == (listed[:50], listed[50:])


def test_people_are_searched_filtered_and_ordered(alice: TestClient, listed: list[str]) -> None:
    def names(query: str) -> list[str]:
        answer = alice.get(f"/api/v1/users?limit=200&q=listed{query}").json()
        assert answer["next"] is None
        assert names_on(alice.get(f"/account/people?q=listed{query}").text) == [
            entry["name"] for entry in answer["data"][:50]
        ]
        return [entry["name"] for entry in answer["data"]]

    assert names("&order=name") == sorted(listed, key=str.casefold)
    assert names("&role=viewer") == names("&access=disabled") == ["listed viewer"]
    assert names("&access=enabled") == names("&role=member") == listed[1:]
    assert "Nothing matches" in alice.get("/account/people?q=nobody%25").text


def test_people_by_name_are_read_in_pages(alice: TestClient, listed: list[str]) -> None:
    seen, after = list[str](), ""
    while True:
        answer = alice.get(f"/api/v1/users?q=listed&order=name&limit=20{after}").json()
        seen += [entry["name"] for entry in answer["data"]]
        if answer["next"] is None:
            break
        after = f"&after={answer['next']}"
    assert seen == sorted(listed, key=str.casefold)
