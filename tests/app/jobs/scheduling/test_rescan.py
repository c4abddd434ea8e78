"""The database is lost and the files are there: what `athanor rescan` brings back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select
from starlette.testclient import TestClient

from app.checkpoints import service as checkpoints
from app.checkpoints import signature
from app.core import db, storage
from app.core.model_base import new_id
from app.core.models import Checkpoint, Job
from app.jobs import service
from app.jobs.scheduling.rescan import rescan
from tests.app.jobs import factories, saved_checkpoints
from tests.app.jobs.scheduling.test_sweep import age, all_round
from tests.users import Person
from trainer import events
from trainer.run_dir import Inputs, RunDir
from trainer.spec import TrainSpec


@pytest.fixture(scope="module")
def corpus(bob_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(bob_user)


def lost(owner: Person, corpus: str, name: str, *steps: int, signed_for: str | None = None, **fields: Any) -> str:
    """The files of a job that trained to some steps, and no row of it."""
    job_id, fence = factories.started(owner, corpus, name=name, **fields)
    spec = TrainSpec.model_validate(factories.row(job_id).spec)
    RunDir(storage.run(job_id)).create(spec, Inputs(corpora=[], cache="cache"), fence)
    for step in steps:
        saved_checkpoints.on_disk(job_id, step, fence, owner_id=signed_for or owner.id)
    with db.transaction() as session:
        session.execute(delete(Job).where(Job.id == job_id))
    return job_id


def rows(job_id: str) -> list[tuple[int, str]]:
    with db.transaction() as session:
        query = select(Checkpoint.step, Checkpoint.state).where(Checkpoint.job_id == job_id)
        return [(row.step, row.state) for row in session.execute(query.order_by(Checkpoint.step))]


def test_without_an_account_nothing_is_restored(database: str) -> None:
    assert [sentence[:29] for sentence in rescan()] == ["Nobody has an account yet. Op"]


def test_jobs_and_checkpoints_are_restored_to_their_owner(
    bob_user: Person, alice_user: Person, bob_api: TestClient, bob: TestClient, alice_api: TestClient, corpus: str
) -> None:
    job_id = lost(bob_user, corpus, "First furnace", 20, 40)
    assert bob_api.get(f"/api/v1/jobs/{job_id}").status_code == 404
    told = list(rescan())
    assert f"Job {job_id} “First furnace” of Bob, checkpoints: 2" in told
    assert told[-1] == "Jobs found: 1; checkpoints: 2."
    job = bob_api.get(f"/api/v1/jobs/{job_id}").json()
    assert (job["state"], job["step"], job["name"]) == ("cancelled", 40, "First furnace")
    history = bob_api.get(f"/api/v1/jobs/{job_id}/history").json()["data"]
    assert [entry["reason"] for entry in history] == ["rescanned"]
    assert "checkpoints: 2" in history[0]["message"]
    listed = bob_api.get(f"/api/v1/checkpoints?job={job_id}").json()["data"]
    assert [(row["step"], row["metrics"]["eval_loss"]) for row in listed] == [(40, 2.0), (20, 2.0)]
    assert bob_api.get(f"/api/v1/checkpoints/{listed[0]['id']}/download").status_code == 200
    for page in (f"/jobs/{job_id}", "/jobs", "/", f"/checkpoints/{listed[0]['id']}", "/playground"):
        assert bob.get(page).status_code == 200, page
    assert alice_api.get(f"/api/v1/jobs/{job_id}").status_code == 404


def test_counted_steps_of_epochs_are_restored_from_the_journals_that_can_be_read(
    bob_user: Person, alice_user: Person, bob_api: TestClient, bob: TestClient, corpus: str
) -> None:
    counted = lost(bob_user, corpus, "Counted", 20, num_train_epochs=2)
    damaged = lost(bob_user, corpus, "Uncounted", 20, num_train_epochs=2)
    sizes = {"num_tokens": 9, "num_train_sequences": 70, "num_validation_sequences": 4, "bytes_per_token": 2.1}
    line = events.DataEvent(seq=1, at=1.0, max_steps=37, **sizes).model_dump_json() + "\n"
    for job_id, attempt, text in ((counted, 1, "{}\n"), (counted, 2, line), (damaged, 1, "{}\n" + line)):
        journal = RunDir(storage.run(job_id)).attempt_path(attempt) / "events.jsonl"
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(text)
    list(rescan())
    for job_id, max_steps in ((counted, 37), (damaged, None)):
        assert bob_api.get(f"/api/v1/jobs/{job_id}").json()["max_steps"] == max_steps
        (checkpoint,) = bob_api.get(f"/api/v1/checkpoints?job={job_id}").json()["data"]
        pages = (f"/jobs/{job_id}", "/jobs", f"/checkpoints/{checkpoint['id']}", f"/jobs/new?from={checkpoint['id']}")
        assert [bob.get(page).status_code for page in pages] == [200] * 4
    plan = bob_api.post("/api/v1/jobs/plan", json={"resume_from_checkpoint": checkpoint["id"]})
    assert (plan.status_code, plan.json()["code"]) == (422, "epochs_uncounted")


def test_a_second_rescan_finds_nothing_new(bob_user: Person, alice_user: Person, corpus: str) -> None:
    job_id = lost(bob_user, corpus, "Twice", 20)
    list(rescan())
    before = rows(job_id)
    assert list(rescan())[-1] == "Jobs found: 0; checkpoints: 0."
    assert rows(job_id) == before
    with db.transaction() as session:
        assert len(service.history(session, job_id=job_id)) == 1


def test_jobs_of_a_missing_user_go_to_the_owner_of_the_installation(
    bob_user: Person, alice_user: Person, corpus: str
) -> None:
    job_id = lost(bob_user, corpus, "Of nobody", 20, signed_for=new_id())
    assert f"Job {job_id} “Of nobody” of Alice, checkpoints: 1" in list(rescan())
    assert factories.row(job_id).owner_id == alice_user.id


def test_a_damaged_checkpoint_is_restored_as_damaged_and_named(
    bob_user: Person, alice_user: Person, corpus: str
) -> None:
    job_id = lost(bob_user, corpus, "Bitten", 20, 40)
    (storage.run(job_id) / "checkpoints" / "step-40-1" / "model.safetensors").write_bytes(b"bitten")
    assert "  step 40: damaged, model.safetensors differs from MANIFEST.json" in list(rescan())
    assert rows(job_id) == [(20, "ready"), (40, "corrupt")]


def test_a_repaired_checkpoint_is_usable_again_and_reported(bob_user: Person, alice_user: Person, corpus: str) -> None:
    job_id = lost(bob_user, corpus, "Mended", 20, 40)
    for step in (20, 40):
        file = storage.run(job_id) / f"checkpoints/step-{step}-1/model.safetensors"
        file.rename(file.with_name("aside"))
    list(rescan())
    assert rows(job_id) == [(20, "corrupt"), (40, "corrupt")]
    assert not any("intact again" in sentence for sentence in rescan())
    file.with_name("aside").rename(file)
    assert f"Job {job_id}, step 40: intact again, no longer marked as damaged" in list(rescan())
    assert rows(job_id) == [(20, "corrupt"), (40, "ready")]


def test_unsigned_files_are_skipped_and_stay_in_place(bob_user: Person, alice_user: Person, corpus: str) -> None:
    job_id = lost(bob_user, corpus, "Strange", 20)
    directory = storage.run(job_id) / "checkpoints" / "step-20-1"
    (directory / "MANIFEST.json").write_text("{}")
    told = list(rescan())
    path = f"runs/{job_id}/checkpoints/step-20-1"
    assert f"Skipped {path}: SIGNATURE does not fit MANIFEST.json." in told
    moved = lost(bob_user, corpus, "Moved", 30)
    place = storage.run(moved) / "checkpoints" / "step-30-1"
    place.rename(place.with_name("step-31-1"))
    told = list(rescan())
    assert f"Skipped runs/{moved}/checkpoints/step-31-1: it is signed for another place." in told
    age(storage.run(job_id), 100 * 3600.0)
    all_round()
    assert directory.exists()
    with db.transaction() as session:
        assert session.get(Job, job_id) is None


def test_a_job_with_an_unreadable_spec_is_named(bob_user: Person, alice_user: Person, corpus: str) -> None:
    job_id = lost(bob_user, corpus, "No spec", 20)
    (storage.run(job_id) / "spec.json").write_text("{")
    assert f"Skipped runs/{job_id}: spec.json." in list(rescan())


def test_restored_checkpoints_are_verified_and_kept(bob_user: Person, alice_user: Person, corpus: str) -> None:
    job_id = lost(bob_user, corpus, "Kept", *range(10, 60, 10))
    list(rescan())
    age(storage.run(job_id), 100 * 3600.0)
    all_round()
    for directory in (storage.run(job_id) / "checkpoints").iterdir():
        signature.verify(directory)
    with db.transaction() as session:
        found, _more = checkpoints.list_checkpoints(session, principal=bob_user.principal, job_id=job_id)
    assert len(found) == 5


def test_the_command_reports_its_results(
    database: str, bob_user: Person, alice_user: Person, corpus: str, root: Path
) -> None:
    job_id = lost(bob_user, corpus, "By command", 20)
    environment = {"DATABASE_URL": database, "ATHANOR_DATA": str(storage.data()), "PATH": "", "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "app.launcher.cli", "rescan"]
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"Job {job_id} “By command” of Bob, checkpoints: 1\n  step 20: intact" in ran.stdout


def test_without_a_database_the_command_names_what_to_start(tmp_path: Path, root: Path) -> None:
    environment = {"ATHANOR_DATA": str(tmp_path), "PATH": "", "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "app.launcher.cli", "rescan"]
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, "Run `athanor up`" in ran.stderr) == (2, True), ran.stderr
