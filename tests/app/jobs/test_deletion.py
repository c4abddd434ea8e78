"""Jobs, checkpoints and tokenizers are deleted: not while something uses them, into the trash, then completely."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.core import db, deleted_directories, storage
from app.core.installation_models import DeletedDirectory
from app.core.models import (
    BackgroundTask,
    Checkpoint,
    Job,
    JobEvent,
    MetricPoint,
    MetricRollup,
    Tokenizer,
)
from app.jobs import deletion
from app.jobs.attempts import attempts
from app.jobs.scheduling import sweep as sweep_module
from app.jobs.scheduling.rescan import rescan
from app.jobs.scheduling.sweep import Sweep
from app.tokenizers import service as tokenizers_service
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person
from trainer.run_dir import Inputs, RunDir


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user)


def ended(owner: Person, corpus: str, **fields: Any) -> tuple[str, str]:
    """A job that succeeded, with metrics and files; returns its ID and that of its only checkpoint."""
    job_id, fence = factories.started(owner, corpus, **fields)
    spec = factories.row(job_id).spec
    RunDir(storage.run(job_id)).create(spec, Inputs(corpora=[], cache="cache"), fence)
    steps = spec.max_steps or 0
    factories.record(job_id, fence, factories.losses([2.0] * steps))
    checkpoint = saved_checkpoints.recorded(job_id, steps, fence)
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    return job_id, checkpoint.id


def rows_of(job_id: str) -> int:
    tables = (JobEvent, MetricPoint, MetricRollup, Checkpoint)
    with db.transaction() as session:
        return sum(session.scalar(select(func.count()).where(table.job_id == job_id)) or 0 for table in tables)


def task_on(checkpoint_id: str, owner: Person, state: str) -> str:
    with db.transaction() as session:
        task = BackgroundTask(owner_id=owner.id, checkpoint_id=checkpoint_id, kind="export", state=state)
        session.add(task)
        session.flush()
        directory = storage.background_task(task.id)
        directory.mkdir(parents=True)
        return task.id


def sweep() -> None:
    for _round in range(2):
        Sweep().step()


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# ---- jobs -----------------------------------------------------------------------------------------------------------


def test_a_job_is_deleted_with_all_that_belongs_to_it(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    job_id, checkpoint_id = ended(alice_user, corpus)
    task_id = task_on(checkpoint_id, alice_user, "succeeded")
    assert rows_of(job_id) > 0
    assert alice_api.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert alice_api.get(f"/api/v1/jobs/{job_id}").status_code == 404
    assert alice_api.get(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 404
    assert rows_of(job_id) > 0
    assert alice_api.delete("/api/v1/trash").status_code == 204
    sweep()
    assert rows_of(job_id) == 0
    assert not storage.run(job_id).exists()
    assert not storage.background_task(task_id).exists()
    assert list((storage.data() / "trash").iterdir()) == []


def test_the_metrics_of_a_deleted_job_are_deleted_in_batches(
    alice: TestClient, alice_user: Person, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, _checkpoint_id = ended(alice_user, corpus, max_steps=9, warmup_steps=1)
    assert alice.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert alice.delete(f"/api/v1/trash/{job_id}").status_code == 204
    assert alice.post(f"/api/v1/trash/{job_id}/restore").status_code == 404
    assert alice.get(f"/api/v1/jobs/{job_id}").json()["code"] == "not_found"
    monkeypatch.setattr(sweep_module, "ROWS", 4)
    assert jobs_purged() == [job_id]
    counts = [points_of(job_id)]
    while jobs_purged():
        assert len(counts) < 99
        Sweep().step()
        counts.append(points_of(job_id))
    assert counts[0] > 8
    assert max(before - after for before, after in pairwise(counts)) == 4
    assert (counts[-1], rows_of(job_id)) == (0, 0)
    with db.transaction() as session:
        assert session.get(Job, job_id) is None


def jobs_purged() -> list[str]:
    with db.transaction() as session:
        return deletion.list_purged(session, 9)


def points_of(job_id: str) -> int:
    with db.transaction() as session:
        tables = (MetricPoint, MetricRollup)
        return sum(session.scalar(select(func.count()).where(table.job_id == job_id)) or 0 for table in tables)


def test_a_deleted_job_is_not_restored_before_its_files_are_removed(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id, _checkpoint_id = ended(alice_user, corpus)
    assert alice_api.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert alice_api.delete(f"/api/v1/trash/{job_id}").status_code == 204
    assert [line for line in rescan() if job_id in line] == []
    assert alice_api.get(f"/api/v1/jobs/{job_id}").status_code == 404


def test_files_that_a_process_writes_after_the_removal_are_removed_too(alice_user: Person, corpus: str) -> None:
    job_id, _checkpoint_id = ended(alice_user, corpus)
    directory = storage.run(job_id)
    with db.transaction() as session:
        deleted_directories.note(session, directory)
        session.delete(session.get_one(Job, job_id))
    sweep()
    (directory / "attempts").mkdir(parents=True)
    with db.transaction() as session:
        session.execute(update(DeletedDirectory).values(removed_at=func.now() - deleted_directories.LIFETIME))
    sweep()
    assert not directory.exists()
    with db.transaction() as session:
        assert not deleted_directories.is_noted(session, directory)


def test_an_unfinished_job_is_not_deleted(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    for job_id in (factories.submitted(alice_user, corpus), factories.started(alice_user, corpus)[0]):
        assert refusal(alice_api.delete(f"/api/v1/jobs/{job_id}")) == (409, "job_open")
        assert alice_api.get(f"/api/v1/jobs/{job_id}").status_code == 200


def test_a_job_whose_checkpoint_is_used_is_not_deleted_and_the_user_is_named(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id, checkpoint_id = ended(alice_user, corpus)
    steps = 2 * (factories.row(job_id).max_steps or 0)
    fields = {"resume_from_checkpoint": checkpoint_id, "max_steps": steps, "name": "Second half"}
    answer = alice_api.post("/api/v1/jobs", json=fields)
    assert answer.status_code == 201, answer.text
    for path in (f"/api/v1/jobs/{job_id}", f"/api/v1/checkpoints/{checkpoint_id}"):
        refused = alice_api.delete(path)
        assert refusal(refused) == (409, "checkpoint_in_use")
        assert "“Second half”" in refused.json()["title"]
    alice_api.post(f"/api/v1/jobs/{answer.json()['id']}/cancel")
    assert alice_api.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert alice_api.get(f"/api/v1/jobs/{answer.json()['id']}").status_code == 200


def test_the_job_of_another_user_is_not_deleted(bob_api: TestClient, alice_user: Person, corpus: str) -> None:
    job_id, checkpoint_id = ended(alice_user, corpus)
    assert bob_api.delete(f"/api/v1/jobs/{job_id}").status_code == 404
    assert bob_api.delete(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 404


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_deleted_and_its_exports_stay(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    job_id, checkpoint_id = ended(alice_user, corpus)
    task_id = task_on(checkpoint_id, alice_user, "succeeded")
    alice_api.post(f"/api/v1/checkpoints/{checkpoint_id}/pin")
    assert alice_api.delete(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 204
    assert alice_api.get(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 404
    sweep()
    assert len(list((storage.run(job_id) / "checkpoints").iterdir())) == 1
    assert alice_api.delete(f"/api/v1/trash/{checkpoint_id}").status_code == 204
    assert alice_api.get(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 410
    assert alice_api.delete(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 410
    sweep()
    assert list((storage.run(job_id) / "checkpoints").iterdir()) == []
    assert alice_api.get(f"/api/v1/tasks/{task_id}").status_code == 200
    assert [line for line in rescan() if job_id in line] == []


@pytest.mark.parametrize("kind", ["jobs", "checkpoints"])
def test_the_tasks_of_a_deleted_checkpoint_are_cancelled_if_they_are_of_its_owner(
    alice_api: TestClient, alice_user: Person, bob_user: Person, corpus: str, kind: str
) -> None:
    job_id, checkpoint_id = ended(alice_user, corpus)
    path = f"/api/v1/{kind}/{job_id if kind == 'jobs' else checkpoint_id}"
    own, of_another = task_on(checkpoint_id, alice_user, "running"), task_on(checkpoint_id, bob_user, "running")
    assert refusal(alice_api.delete(path)) == (409, "checkpoint_in_use")
    with db.transaction() as session:
        assert session.get_one(BackgroundTask, own).state == "running"
        session.get_one(BackgroundTask, of_another).state = "cancelled"
    assert alice_api.delete(path).status_code == 204
    with db.transaction() as session:
        assert session.get_one(BackgroundTask, own).state == "cancelled"


def test_an_unfinished_job_keeps_the_checkpoints_that_it_may_resume_from(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id, fence = factories.started(alice_user, corpus, save_total_limit=2)
    factories.record(job_id, fence, factories.losses([2.0] * 30))
    saved = [saved_checkpoints.recorded(job_id, step, fence, loss=3 - step / 10).id for step in (10, 20, 30)]
    answers = [alice_api.delete(f"/api/v1/checkpoints/{checkpoint_id}").status_code for checkpoint_id in saved]
    assert answers[1:] == [409, 409]
    assert answers[0] in (204, 410)  # its job may have deleted it already


# ---- tokenizers -----------------------------------------------------------------------------------------------------


def tokenizer_of(owner: Person, sha256: str) -> tuple[str, Path]:
    with db.transaction() as session:
        row = tokenizers_service.record_tokenizer(
            session, owner_id=owner.id, name="Genesis", vocab_size=500, sha256=sha256, corpora=[]
        )
    directory = storage.tokenizer(row.id)
    directory.mkdir(parents=True)
    return row.id, directory


def test_a_tokenizer_is_deleted_once_no_open_job_uses_it(
    alice_api: TestClient, bob_api: TestClient, alice_user: Person, corpus: str
) -> None:
    tokenizer_id, directory = tokenizer_of(alice_user, "a" * 64)
    job_id = factories.submitted(alice_user, corpus, tokenizer=tokenizer_id, name="Needs it")
    assert bob_api.delete(f"/api/v1/tokenizers/{tokenizer_id}").status_code == 404
    refused = alice_api.delete(f"/api/v1/tokenizers/{tokenizer_id}")
    assert refusal(refused) == (409, "tokenizer_in_use")
    assert "“Needs it”" in refused.json()["title"]
    alice_api.post(f"/api/v1/jobs/{job_id}/cancel")
    assert alice_api.delete(f"/api/v1/tokenizers/{tokenizer_id}").status_code == 204
    assert alice_api.delete(f"/api/v1/trash/{tokenizer_id}").status_code == 204
    sweep()
    assert not directory.exists()
    with db.transaction() as session:
        assert session.get(Tokenizer, tokenizer_id) is None


def test_a_job_that_chose_a_deleted_tokenizer_is_not_continued_with_another(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    tokenizer_id, _directory = tokenizer_of(alice_user, "b" * 64)
    job_id, checkpoint_id = ended(alice_user, corpus, tokenizer=tokenizer_id)
    assert alice_api.delete(f"/api/v1/tokenizers/{tokenizer_id}").status_code == 204
    steps = 2 * (factories.row(job_id).max_steps or 0)
    answer = alice_api.post("/api/v1/jobs", json={"resume_from_checkpoint": checkpoint_id, "max_steps": steps})
    assert refusal(answer) == (422, "in_trash")
    assert alice_api.delete(f"/api/v1/trash/{tokenizer_id}").status_code == 204
    answer = alice_api.post("/api/v1/jobs", json={"resume_from_checkpoint": checkpoint_id, "max_steps": steps})
    assert refusal(answer) == (422, "tokenizer_unknown")


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_pages_ask_before_they_delete(alice: TestClient, alice_user: Person, corpus: str) -> None:
    job_id, checkpoint_id = ended(alice_user, corpus)
    tokenizer_id, _directory = tokenizer_of(alice_user, "c" * 64)
    for path, then in (
        (f"/tokenizers/{tokenizer_id}", "/tokenizers"),
        (f"/checkpoints/{checkpoint_id}", f"/jobs/{job_id}"),
    ):
        page = alice.get(path).text
        assert '<dialog id="delete"' in page
        assert f'action="{path}/delete"' in page
        answer = alice.post(f"{path}/delete")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{then}?trashed={path.rpartition('/')[2]}")


def test_the_page_of_an_unfinished_job_offers_no_deletion(alice: TestClient, alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    assert 'name="action" value="delete"' not in alice.get(f"/jobs/{job_id}").text
    answer = alice.post("/jobs/bulk", data={"job": job_id, "action": "delete"})
    assert "This job has not ended." in answer.text
    assert 'name="confirmed"' in answer.text
    answer = alice.post("/jobs/bulk", data={"job": job_id, "action": "delete", "confirmed": "true"})
    assert (answer.status_code, "This job has not ended." in answer.text) == (422, True)


def test_what_a_deletion_of_jobs_frees_and_what_depends_on_it_is_confirmed(
    alice: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id, _checkpoint_id = ended(alice_user, corpus)
    used_id, used_checkpoint_id = ended(alice_user, corpus)
    steps = factories.row(used_id).max_steps * 2
    later = factories.submitted(
        alice_user, corpus, name="goes further", resume_from_checkpoint=used_checkpoint_id, max_steps=steps
    )
    file = storage.run(job_id) / "weights"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"0" * 3 * 2**20)
    assert 'action="/jobs/bulk"' in alice.get(f"/jobs/{job_id}").text

    page = alice.post("/jobs/bulk", data={"job": [job_id, used_id], "action": "delete"}).text
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", page, re.DOTALL)
    assert ["1 checkpoint goes with it" in row for row in rows] == [True, True]
    assert "3.0 MiB" in rows[0]
    assert ("goes further" in rows[0], "goes further" in rows[1]) == (False, True)
    assert factories.row(job_id).deleted_at is None

    body = {"job": [job_id, used_id], "action": "delete", "confirmed": "true"}
    assert "1 entry was moved to the trash." in alice.post("/jobs/bulk", data=body).text
    assert factories.row(job_id).deleted_at is not None
    assert factories.row(used_id).deleted_at is None
    assert factories.row(later).state == "queued"
