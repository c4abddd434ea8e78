"""What the searches of lists find, and their pages: words of any script, wildcards, equal names, rows of others."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from sqlalchemy import delete, func, select
from starlette.testclient import TestClient

from app.core import audit_log, db, labels
from app.core.conversation_models import Conversation
from app.core.model_base import new_id
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import visible_parts, visible_to
from app.core.share_models import Share
from tests import statements, users
from tests.app.web import list_rows
from tests.users import Person

LISTS: dict[str, type[Any]] = {
    "checkpoints": Checkpoint,
    "corpora": Corpus,
    "jobs": Job,
    "models": ImportedModel,
    "tokenizers": Tokenizer,
}
WORDS = "Äpfel Œuvre ПРИВЕТ Łódź ΑΒΓ 诗歌"
NAMES = (WORDS, "100% axb", "100 a%b", "100 a_b", "100 a\\b", "100 a'b")
FOUND = {
    "äpfel": [WORDS],
    "ÄPFEL ŒUVRE": [WORDS],
    "привет": [WORDS],
    "łÓDŹ": [WORDS],
    "αβγ": [WORDS],
    "诗歌": [WORDS],
    "ä": [WORDS],
    "apfel": [],
    "a%b": ["100 a%b"],
    "a_b": ["100 a_b"],
    "a\\b": ["100 a\\b"],
    "a'b": ["100 a'b"],
    "A%B": ["100 a%b"],
    "0%": ["100% axb"],
    "%": ["100 a%b", "100% axb"],
    "_": ["100 a_b"],
    "\\": ["100 a\\b"],
    "1__": [],
    "a%%b": [],
    "a\\%b": [],
}


@pytest.fixture(scope="module")
def carol() -> Person:
    return users.enter("Carol", "member")


@pytest.fixture
def nothing_else() -> Iterator[None]:
    """Rows that a test adds are gone at its end."""
    yield
    with db.transaction() as session:
        for table in (Share, Checkpoint, Job, Corpus, ImportedModel, Tokenizer, Conversation):
            session.execute(delete(table))


def share(owner: Person, subject_id: str, user: Person | None) -> None:
    with db.transaction() as session:
        session.add(Share(owner_id=owner.id, subject_id=subject_id, user_id=user and user.id))


def pages(client: TestClient, path: str, limit: int, **query: str) -> list[list[dict[str, Any]]]:
    """All pages of a list."""
    rows: list[list[dict[str, Any]]] = []
    after: str | None = ""
    while after is not None:
        answer = client.get(path, params={"limit": limit, **query, **({"after": after} if after else {})})
        assert answer.status_code == 200, answer.text
        rows.append(answer.json()["data"])
        after = answer.json()["next"]
    return rows


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("kind", LISTS)
def test_words_of_any_script_are_found_and_wildcards_are_characters(
    alice_api: TestClient, alice_user: Person, kind: str
) -> None:
    ids = {list_rows.add(LISTS[kind], alice_user.id, name): name for name in NAMES}
    for search, names in FOUND.items():
        (page,) = pages(alice_api, f"/api/v1/{kind}", 50, q=search)
        assert sorted(ids[row["id"]] for row in page) == sorted(names), search


@pytest.mark.usefixtures("nothing_else")
def test_the_searches_of_conversations_audit_log_and_everybodys_jobs_find_the_same(
    alice_api: TestClient, alice_user: Person
) -> None:
    with db.transaction() as session:
        for name in NAMES:
            session.add(Conversation(owner_id=alice_user.id, title=name, activity_id=new_id()))
            audit_log.record(session, "job_renamed", alice_user.principal, subject=name, subject_id="")
    for name in NAMES:
        list_rows.add(Job, alice_user.id, name)
    for path, key in (("conversations", "title"), ("audit-log", "subject"), ("everyones-jobs", "name")):
        for search, names in FOUND.items():
            (page,) = pages(alice_api, f"/api/v1/{path}", 50, q=search)
            assert sorted(row[key] for row in page) == sorted(names), (path, search)


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("order", ["newest", "name"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_rows_of_one_name_and_those_of_others_are_each_on_one_page(
    alice_api: TestClient, alice_user: Person, bob_user: Person, carol: Person, kind: str, order: str, limit: int
) -> None:
    table = LISTS[kind]
    added = []
    for number in range(9):
        owner = (alice_user, bob_user, carol)[number % 3]
        name = ("same", "Same", "other")[number // 3]  # a name's case is no order
        row_id = list_rows.add(table, owner.id, name)
        added.append((name.lower(), row_id))
        if owner is not alice_user:
            share(owner, _subject(table, row_id), alice_user if number % 2 else None)
    if table is Corpus:
        added += [("same", list_rows.add(table, None, "same")) for _ in range(2)]
    hidden = list_rows.add(table, bob_user.id, "same")
    read = pages(alice_api, f"/api/v1/{kind}", limit, order=order, q="e")
    assert all(len(page) == limit for page in read[:-1])
    ids = [row["id"] for page in read for row in page]
    expected = sorted(added) if order == "name" else sorted(added, key=lambda row: row[1], reverse=True)
    assert (ids, hidden in ids) == ([row_id for _name, row_id in expected], False)


def _subject(table: type[Any], row_id: str) -> str:
    """Under which ID a row is shared."""
    if table is not Corpus:
        return row_id
    with db.transaction() as session:
        return session.get_one(Corpus, row_id).lineage_id


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("table", LISTS.values(), ids=list(LISTS))
def test_the_parts_of_what_a_user_sees_are_all_that_they_see(
    alice_user: Person, bob_user: Person, carol: Person, table: type[Any]
) -> None:
    owners = [alice_user, bob_user, *([None] if table is Corpus else [])]
    with db.transaction() as session:
        now = session.scalar(select(func.now()))
    for owner, sharing, deleted_at in product(owners, ("nobody", "carol", "everyone", "job"), (None, now)):
        row_id = list_rows.add(table, owner and owner.id, sharing, deleted_at=deleted_at)
        subject = _subject(table, row_id)
        if sharing == "job" and table is Checkpoint:
            with db.transaction() as session:
                subject = session.get_one(Checkpoint, row_id).job_id
        if owner is not None and sharing != "nobody":
            share(owner, subject, None if sharing == "everyone" else carol)
    counts = []
    for person in (alice_user, bob_user, carol):
        with db.transaction() as session:
            whole = session.scalars(select(table.id).where(visible_to(table.owner_id, person.principal))).all()
            parts = [
                session.scalars(select(table.id).where(part)).all()
                for part in visible_parts(table, person.principal).values()
            ]
        assert sorted(row_id for part in parts for row_id in part) == sorted(whole)
        counts.append([len(part) for part in parts])
    shipped = [4] if table is Corpus else []
    assert counts == [[4, 1, *shipped], [4, 1, *shipped], [0, 6, *shipped]]


@pytest.mark.usefixtures("nothing_else")
def test_of_very_many_tags_those_that_most_rows_have_are_offered(
    alice_user: Person, bob_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "MAX_LISTED_TAGS", 3)
    for tags in (["old"], ["z", "b"], ["z", "a"], ["z", "c"], ["y"], ["y"]):
        list_rows.add(Job, alice_user.id, "job", tags=tags)

    def offered(person: Person) -> list[str]:
        with db.transaction() as session:
            return labels.list_tags(session, principal=person.principal, table=Job)

    assert offered(alice_user) == ["a", "b", "z"], "by combinations, then by name"
    monkeypatch.setattr(labels, "MAX_COMBINATIONS", 4)
    monkeypatch.setattr(labels, "MAX_COUNTED_ROWS", 5)
    assert offered(alice_user) == ["a", "y", "z"], "by the newest rows, then by name"
    for tags in (["y"], ["x"], ["x"], ["v"], ["w"]):
        share(bob_user, list_rows.add(Job, bob_user.id, "job", tags=tags), None)
    assert offered(alice_user) == ["x", "y", "z"]


@pytest.mark.usefixtures("nothing_else")
def test_a_search_of_checkpoints_is_said_once_to_be_planned_each_time(
    alice_api: TestClient, alice_user: Person
) -> None:
    list_rows.add(Checkpoint, alice_user.id, "named")
    with statements.record() as queries:
        assert len(alice_api.get("/api/v1/checkpoints?q=named").json()["data"]) == 1
    assert [statement for statement, _parameters in queries if "plan_cache_mode" in statement] == [
        "SET LOCAL plan_cache_mode = force_custom_plan"
    ]
