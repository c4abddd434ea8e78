"""The trash: what is deleted can be restored for seven days, by a click, a request or a command."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from app.core import db, deleted_directories, quotas, storage, trash
from app.core.formatting import file_size
from app.core.json_shapes import TaskResult, TokenizerFacts
from app.core.model_base import new_id
from app.core.models import BackgroundTask, Checkpoint, Corpus, CorpusFile, ImportedModel, Job, Tokenizer
from app.jobs.attempts import attempts
from app.jobs.scheduling.sweep import Sweep
from app.tokenizers import service as tokenizers
from app.trash import service
from tests.app.core.test_principal import imported_model
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person

STEPS = {"max_steps": 4, "warmup_steps": 1}
PATH = "/api/v1/trash"


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user)


def stored_corpus(owner: Person) -> str:
    return factories.corpus(owner, name="stored corpus")


def stored_model(owner: Person) -> str:
    row = imported_model(owner, "stored model")
    row.id, row.num_bytes = new_id(), 7
    storage.base_model(row.id).mkdir(parents=True)
    (storage.base_model(row.id) / "config.json").write_bytes(b"{}")
    with db.transaction() as session:
        session.add(row)
        return row.id


def stored_tokenizer(owner: Person) -> str:
    facts = TokenizerFacts(algorithm="bpe")
    row = Tokenizer(id=new_id(), owner_id=owner.id, name="stored tokenizer", source="import", corpora=[], facts=facts)
    row.vocab_size, row.sha256 = 1, "0" * 64
    storage.tokenizer(row.id).mkdir(parents=True)
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    (storage.tokenizer(row.id) / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    with db.transaction() as session:
        session.add(row)
        return row.id


def stored_job(owner: Person) -> str:
    return factories.finished(owner, factories.corpus(owner), name="stored job", **STEPS)[0]


def stored_checkpoint(owner: Person) -> str:
    return factories.finished(owner, factories.corpus(owner), name="stored checkpoint", **STEPS)[1]


KINDS = [
    ("corpora", "corpus", stored_corpus, Corpus),
    ("models", "model", stored_model, ImportedModel),
    ("tokenizers", "tokenizer", stored_tokenizer, Tokenizer),
    ("jobs", "job", stored_job, Job),
    ("checkpoints", "checkpoint", stored_checkpoint, Checkpoint),
]


def listed(client: TestClient) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = client.get(PATH).json()["data"]
    return answer


def outlive(row_id: str, table: type[Any]) -> None:
    """Its time in the trash is over."""
    with db.transaction() as session:
        past = func.now() - trash.LIFETIME - timedelta(seconds=1)
        session.execute(update(table).where(table.id == row_id).values(deleted_at=past))


def sweep() -> None:
    for _round in range(2):
        Sweep().step()


@pytest.mark.parametrize(("kind", "word", "create", "table"), KINDS)
def test_what_is_deleted_is_restored(
    alice: TestClient, alice_user: Person, corpus: str, kind: str, word: str, create: Any, table: type[Any]
) -> None:
    row_id = create(alice_user)
    path = f"/api/v1/{kind}/{row_id}"
    assert alice.delete(path).status_code == 204
    refused = alice.get(path)
    assert (refused.status_code, refused.json()["code"]) == (404, "in_trash")
    assert row_id not in alice.get(f"/api/v1/{kind}").text
    entry = listed(alice)[0]
    assert (entry["id"], entry["kind"], entry["name"]) == (row_id, word, f"stored {word}")
    assert entry["num_bytes"] > 0
    assert alice.post(f"{PATH}/{row_id}/restore").status_code == 204
    assert alice.get(path).status_code == 200
    assert row_id in alice.get(f"/api/v1/{kind}").text
    assert row_id not in [entry["id"] for entry in listed(alice)]
    assert alice.post(f"{PATH}/{row_id}/restore").status_code == 404


@pytest.mark.parametrize(("kind", "word", "create", "table"), KINDS)
def test_seven_days_later_it_is_deleted_for_good(
    alice: TestClient, alice_user: Person, corpus: str, kind: str, word: str, create: Any, table: type[Any]
) -> None:
    young, old = create(alice_user), create(alice_user)
    for row_id in (young, old):
        assert alice.delete(f"/api/v1/{kind}/{row_id}").status_code == 204
    outlive(old, table)
    sweep()
    assert alice.post(f"{PATH}/{old}/restore").status_code == 404
    assert alice.post(f"{PATH}/{young}/restore").status_code == 204
    with db.transaction() as session:
        row = session.get(table, old)
        assert row is None or row.state == "deleted"  # of checkpoints the row stays


def test_the_trash_of_another_user_is_not_found(alice: TestClient, bob: TestClient, alice_user: Person) -> None:
    row_id = stored_corpus(alice_user)
    assert alice.delete(f"/api/v1/corpora/{row_id}").status_code == 204
    assert bob.get(f"/api/v1/corpora/{row_id}").json()["code"] == "not_found"
    assert bob.post(f"{PATH}/{row_id}/restore").status_code == 404
    assert bob.delete(f"{PATH}/{row_id}").status_code == 404
    assert bob.delete(PATH).status_code == 204
    assert alice.post(f"{PATH}/{row_id}/restore").status_code == 204


def test_emptying_deletes_everything_and_its_files(alice: TestClient, alice_user: Person, corpus: str) -> None:
    rows = [(kind, create(alice_user)) for kind, _word, create, _table in KINDS]
    for kind, row_id in rows:
        assert alice.delete(f"/api/v1/{kind}/{row_id}").status_code == 204
    assert alice.delete(PATH).status_code == 204
    assert listed(alice) == []
    directory = storage.corpus(rows[0][1])
    with db.transaction() as session:
        assert deleted_directories.is_noted(session, directory)
    sweep()
    assert not directory.exists()


def test_a_job_comes_back_with_the_checkpoints_that_went_with_it(
    alice: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id, fence = factories.started(alice_user, corpus, **STEPS)
    factories.record(job_id, fence, factories.losses([2.0] * 4))
    first, second = (saved_checkpoints.recorded(job_id, step, fence).id for step in (2, 4))
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
        task = BackgroundTask(owner_id=alice_user.id, checkpoint_id=second, kind="export", state="succeeded")
        session.add(task)
    for path in (f"checkpoints/{first}", f"jobs/{job_id}"):
        assert alice.delete(f"/api/v1/{path}").status_code == 204
    assert alice.get(f"/api/v1/tasks/{task.id}").status_code == 404
    ids = [entry["id"] for entry in listed(alice)]
    assert job_id in ids
    assert not {first, second} & set(ids)
    assert alice.post(f"{PATH}/{second}/restore").status_code == 404
    assert alice.post(f"{PATH}/{job_id}/restore").status_code == 204
    assert [alice.get(f"/api/v1/checkpoints/{one}").status_code for one in (first, second)] == [404, 200]
    assert alice.get(f"/api/v1/tasks/{task.id}").status_code == 200
    assert f"/checkpoints/{first}" not in alice.get(f"/jobs/{job_id}").text
    assert alice.post(f"{PATH}/{first}/restore").status_code == 204


def test_a_job_is_shown_although_the_checkpoint_that_it_continued_is_in_the_trash(
    alice: TestClient, alice_user: Person, corpus: str
) -> None:
    first, checkpoint_id = factories.finished(alice_user, corpus, **STEPS)
    second, _checkpoint_id = factories.finished(alice_user, corpus, **STEPS)
    with db.transaction() as session:
        session.get_one(Job, second).resume_from_id = checkpoint_id
    assert f"/jobs/{first}" in alice.get(f"/jobs/{second}").text
    assert alice.delete(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 204
    page = alice.get(f"/jobs/{second}")
    assert (page.status_code, f'href="/jobs/{first}"' in page.text) == (200, False)


def test_the_idempotency_key_of_a_deleted_job_is_free(alice: TestClient, corpus: str) -> None:
    def submit() -> str:
        body = {"corpora": [corpus], **STEPS}
        answer = alice.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "again"})
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    first = submit()
    assert submit() == first
    alice.post(f"/api/v1/jobs/{first}/cancel")
    assert alice.delete(f"/api/v1/jobs/{first}").status_code == 204
    assert submit() != first
    assert alice.post(f"{PATH}/{first}/restore").status_code == 204


def test_a_tokenizer_that_a_job_trains_again_leaves_the_trash(alice: TestClient, alice_user: Person) -> None:
    def train() -> str:
        with db.transaction() as session:
            return tokenizers.record_tokenizer(
                session, owner_id=alice_user.id, name="again", vocab_size=500, sha256="e" * 64, corpora=[]
            ).id

    tokenizer_id = train()
    assert alice.delete(f"/api/v1/tokenizers/{tokenizer_id}").status_code == 204
    assert train() == tokenizer_id
    assert alice.get(f"/api/v1/tokenizers/{tokenizer_id}").status_code == 200


def test_a_corpus_that_was_being_read_can_be_read_again_when_it_is_restored(alice: TestClient) -> None:
    corpus = alice.post("/api/v1/corpora", params={"filename": "a.txt"}, content=b"text").json()
    assert alice.delete(f"/api/v1/corpora/{corpus['id']}").status_code == 204
    assert alice.post(f"{PATH}/{corpus['id']}/restore").status_code == 204
    restored = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (restored["state"], restored["problems"][0]["code"]) == ("failed", "reading_cancelled")
    assert alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={}).status_code == 202


def test_an_older_version_stands_in_the_list_while_the_newest_is_in_the_trash(
    alice: TestClient, alice_user: Person
) -> None:
    old, new = stored_corpus(alice_user), stored_corpus(alice_user)
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == new).values(lineage_id=old, version=2))

    def ids() -> list[str]:
        return [entry["id"] for entry in alice.get("/api/v1/corpora").json()["data"]]

    assert old not in ids()
    assert alice.delete(f"/api/v1/corpora/{new}").status_code == 204
    assert old in ids()


def used_by(kind: str, row_id: str, owner: Person, corpus: str) -> str:
    """An unfinished job that still uses a row when it is in the trash."""
    job_id = factories.submitted(owner, row_id if kind == "corpora" else corpus, **STEPS)
    with db.transaction() as session:
        job = session.get_one(Job, job_id)
        if kind == "models":
            job.spec = job.spec.model_copy(update={"base_model": row_id})
        elif kind == "tokenizers":
            job.tokenizer_id = row_id
        elif kind == "checkpoints":
            job.resume_from_id = row_id
        elif kind == "jobs":
            job.resume_from_id = session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == row_id)).first()
    return job_id


@pytest.mark.parametrize(("kind", "word", "create", "table"), KINDS)
def test_what_something_uses_is_not_deleted_for_good(
    alice: TestClient, alice_user: Person, corpus: str, kind: str, word: str, create: Any, table: type[Any]
) -> None:
    row_id = create(alice_user)
    job_id = used_by(kind, row_id, alice_user, corpus)
    with db.transaction() as session:
        if table is Job:
            session.execute(update(Checkpoint).where(Checkpoint.job_id == row_id).values(deleted_at=func.now()))
        session.execute(update(table).where(table.id == row_id).values(deleted_at=func.now()))
    code = {"jobs": "checkpoint_in_use", "corpora": "corpus_in_use"}.get(kind, f"{word}_in_use")
    refused = alice.delete(f"{PATH}/{row_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, code)
    page = alice.post("/trash/delete", data={"row": row_id, "confirmed": "true"})
    assert (page.status_code, refused.json()["title"] in unescape(page.text)) == (409, True)
    assert refused.json()["title"] in unescape(alice.post("/trash/empty").text)
    assert alice.delete(PATH).status_code == 204
    outlive(row_id, table)
    sweep()
    assert row_id in [entry["id"] for entry in listed(alice)]
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(state="cancelled"))
    sweep()
    assert row_id not in [entry["id"] for entry in listed(alice)]


@pytest.mark.parametrize(("kind", "word", "create", "table"), KINDS)
def test_what_works_on_a_row_is_cancelled_when_that_is_deleted_for_good(
    alice: TestClient, alice_user: Person, corpus: str, kind: str, word: str, create: Any, table: type[Any]
) -> None:
    row_id = create(alice_user)
    assert alice.delete(f"/api/v1/{kind}/{row_id}").status_code == 204
    subject = "checkpoint" if kind == "jobs" else word
    work = {"corpus": "statistics", "tokenizer": "tokenizer"}.get(subject, "export")
    with db.transaction() as session:
        of_job = select(Checkpoint.id).where(Checkpoint.job_id == row_id)
        on = {f"{subject}_id": session.scalar(of_job) if kind == "jobs" else row_id}
        task = BackgroundTask(owner_id=alice_user.id, kind=work, state="running", **on)
        session.add(task)
    assert alice.delete(f"{PATH}/{row_id}").status_code == 204
    with db.transaction() as session:
        left = session.get(BackgroundTask, task.id)
        assert left is None or left.state == "cancelled"  # of checkpoints the row stays, and its tasks


def test_checkpoints_of_a_job_that_can_be_restored_stay_with_it(
    alice: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id, checkpoint_id = factories.finished(alice_user, corpus, **STEPS)
    assert alice.delete(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 204
    assert alice.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    outlive(checkpoint_id, Checkpoint)
    sweep()
    assert alice.post(f"{PATH}/{job_id}/restore").status_code == 204
    assert alice.post(f"{PATH}/{checkpoint_id}/restore").status_code == 204
    assert alice.get(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 200


def test_the_size_on_the_page_is_what_emptying_frees_of_the_quota(alice: TestClient, alice_user: Person) -> None:
    alice.delete(PATH)
    sweep()
    kept, deleted = stored_corpus(alice_user), stored_corpus(alice_user)
    model_id, tokenizer_id = stored_model(alice_user), stored_tokenizer(alice_user)
    with db.transaction() as session:
        for corpus_id in (kept, deleted):  # one file in two corpora: the quota counts it once
            session.execute(delete(CorpusFile).where(CorpusFile.corpus_id == corpus_id))
            file = CorpusFile(
                corpus_id=corpus_id, position=0, filename="a", format="text", num_bytes=10_000, sha256="d" * 64
            )
            session.add(file)
        task = BackgroundTask(owner_id=alice_user.id, model_id=model_id, kind="export", state="succeeded")
        task.result = TaskResult.model_validate({"files": [{"name": "a", "size": 500, "sha256": "0" * 64}]})
        session.add(task)
    for path in (f"corpora/{deleted}", f"models/{model_id}", f"tokenizers/{tokenizer_id}"):
        assert alice.delete(f"/api/v1/{path}").status_code == 204
    with db.transaction() as session:
        count, num_bytes = service.total(session, principal=alice_user.principal)
        before = quotas.used_bytes(session, alice_user.id)
        text_bytes = session.get_one(Corpus, deleted).num_text_bytes or 0
    assert (count, num_bytes) == (3, text_bytes + 7 + 500)
    assert f"Emptying the trash frees {file_size(num_bytes)} of the disk space" in alice.get("/trash").text
    assert alice.delete(PATH).status_code == 204
    with db.transaction() as session:
        assert quotas.used_bytes(session, alice_user.id) == before - num_bytes


def test_files_in_the_trash_count_toward_the_quota(alice: TestClient, alice_user: Person) -> None:
    def used() -> int:
        return int(alice.get("/api/v1/me/usage").json()["disk_bytes"])

    row_id = stored_corpus(alice_user)
    before = used()
    assert alice.delete(f"/api/v1/corpora/{row_id}").status_code == 204
    assert used() == before
    assert alice.delete(f"{PATH}/{row_id}").status_code == 204
    assert used() < before


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_one_click_undoes_a_deletion(alice: TestClient, alice_user: Person) -> None:
    row_id = stored_corpus(alice_user)
    page = alice.post(f"/corpora/{row_id}/delete", follow_redirects=True).text
    assert "1 entry was moved to the trash." in page
    assert f'<input type="hidden" name="row" value="{row_id}">' in page
    answer = alice.post("/trash/restore", data={"row": row_id})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/corpora/{row_id}")
    assert alice.get(f"/corpora/{row_id}").status_code == 200
    assert alice.post("/trash/restore", data={"row": row_id}).headers["location"] == "/trash"


def test_the_address_alone_makes_no_notice(alice: TestClient, bob: TestClient, alice_user: Person, corpus: str) -> None:
    row_id = stored_corpus(alice_user)
    notice = "1 entry was moved to the trash."
    assert notice not in alice.get("/corpora", params={"trashed": row_id}).text
    assert alice.delete(f"/api/v1/corpora/{row_id}").status_code == 204
    assert notice in alice.get("/corpora", params={"trashed": row_id}).text
    assert notice not in bob.get("/corpora", params={"trashed": row_id}).text
    assert alice.delete(f"{PATH}/{row_id}").status_code == 204
    assert notice not in alice.get("/corpora", params={"trashed": row_id}).text


@pytest.mark.parametrize("action", ["restore", "delete"])
def test_choosing_nothing_is_answered_with_a_message(alice: TestClient, action: str) -> None:
    answer = alice.post(f"/trash/{action}", data={})
    assert (answer.status_code, "Choose at least one entry of the list." in answer.text) == (409, True)


def test_a_deletion_of_several_is_undone_together(alice: TestClient, alice_user: Person) -> None:
    ids = [stored_model(alice_user), stored_model(alice_user)]
    page = alice.post("/models/bulk", data={"model": ids, "action": "delete", "confirmed": "true"}).text
    assert "2 entries were moved to the trash." in page
    assert re.findall(r'name="row" value="(\w+)"', page) == ids
    assert alice.post("/trash/restore", data={"row": ids}).headers["location"] == "/models"
    assert all(row_id in alice.get("/models").text for row_id in ids)


def test_the_page_lists_and_deletes_for_good(alice: TestClient, alice_user: Person, corpus: str) -> None:
    alice.delete(PATH)
    assert "The trash is empty" in alice.get("/trash").text
    rows = [(kind, create(alice_user)) for kind, _word, create, _table in KINDS]
    for kind, row_id in rows:
        assert alice.delete(f"/api/v1/{kind}/{row_id}").status_code == 204
    page = alice.get("/trash").text
    assert all(f"stored {word}" in page for _kind, word, _create, _table in KINDS)
    assert "of the disk space that counts toward your quota" in page
    question = alice.post("/trash/delete", data={"row": rows[0][1]}).text
    assert ("Delete for good?" in question, "stored corpus" in question) == (True, True)
    assert "stored corpus" in alice.get("/trash").text
    confirmed = {"row": rows[0][1], "confirmed": "true"}
    assert alice.post("/trash/delete", data=confirmed).headers["location"] == "/trash"
    assert "stored corpus" not in alice.get("/trash").text
    assert alice.post("/trash/empty").status_code == 303
    assert "The trash is empty" in alice.get("/trash").text


def test_a_long_trash_has_pages(alice: TestClient, alice_user: Person) -> None:
    alice.delete(PATH)
    ids = [stored_tokenizer(alice_user) for _number in range(3)]
    for row_id in ids:
        alice.delete(f"/api/v1/tokenizers/{row_id}")
    first = alice.get(PATH, params={"limit": 2}).json()
    rest = alice.get(PATH, params={"limit": 2, "after": first["next"]}).json()
    assert [entry["id"] for entry in (*first["data"], *rest["data"])] == ids[::-1]
    assert rest["next"] is None


def test_the_next_page_is_the_same_after_an_entry_was_restored(alice: TestClient, alice_user: Person) -> None:
    alice.delete(PATH)
    ids = [stored_tokenizer(alice_user) for _number in range(3)]
    for row_id in ids:
        alice.delete(f"/api/v1/tokenizers/{row_id}")
    following = alice.get(PATH, params={"limit": 2}).json()["next"]
    assert alice.post(f"{PATH}/{ids[1]}/restore").status_code == 204
    rest = alice.get(PATH, params={"limit": 2, "after": following}).json()
    assert [entry["id"] for entry in rest["data"]] == [ids[0]]
    for other in (ids[1], "1-", "99999999999999999-x\n"):
        answer = alice.get(PATH, params={"after": other})
        assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")
    assert alice.get("/trash", params={"after": "99999999999999999-zz"}).status_code == 200


def test_the_page_of_what_is_in_the_trash_leads_there(alice: TestClient, alice_user: Person) -> None:
    row_id = stored_corpus(alice_user)
    alice.delete(f"/api/v1/corpora/{row_id}")
    page = alice.get(f"/corpora/{row_id}")
    assert (page.status_code, 'href="/trash"' in page.text.partition("<main")[2]) == (404, True)
