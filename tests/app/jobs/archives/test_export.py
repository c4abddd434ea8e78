"""A job that has ended as an archive: what is in it, and that it never looks complete when it is not."""

import csv
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.client.run_archives import verify
from app.core import db, storage
from app.core.models import Job, Tokenizer
from app.jobs.archives import export
from app.jobs.archives.tar_stream import FileChanged
from app.jobs.attempts import attempts
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person
from trainer import events
from trainer.spec import TrainSpec

LOSSES = {10: 2.0, 20: 1.0, 30: 1.5}  # of validation, by the step of each checkpoint


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user, name="Genèse")


@pytest.fixture(scope="module")
def job_id(alice_user: Person, corpus: str) -> str:
    """A job that was cancelled at step 30: three checkpoints, the second one the best, a sample, and its tokenizer."""
    return cancelled(alice_user, corpus, name="First / né")


def cancelled(owner: Person, corpus: str, **fields: Any) -> str:
    job_id, fence = factories.started(owner, corpus, max_steps=40, save_steps=10, **fields)
    factories.record(job_id, fence, factories.losses([4.0] * 30))
    factories.record(job_id, fence, [events.SampleEvent(seq=50, at=1.0, step=10, prompt="In", text="the 起初\n")])
    for step, loss in LOSSES.items():
        saved_checkpoints.recorded(job_id, step, fence, loss=loss)
    with db.transaction() as session:
        sha256 = hashlib.sha256(job_id.encode()).hexdigest()
        tokenizer = Tokenizer(owner_id=owner.id, name="Words", vocab_size=300, sha256=sha256, corpora=[corpus])
        session.add(tokenizer)
        session.flush()
        session.execute(update(Job).where(Job.id == job_id).values(tokenizer_id=tokenizer.id, desired="cancel"))
        attempts.begin_stop(session, job_id=job_id, fence=fence, state="cancelling")
        attempts.release(session, job_id=job_id, fence=fence, reason="stopped")
        directory = storage.tokenizer(tokenizer.id)
    directory.mkdir(parents=True)
    (directory / "tokenizer.json").write_text("{}")
    return job_id


def contents(archive: bytes) -> dict[str, bytes]:
    """The files of an archive by their names, in its order."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|") as entries:
        return {entry.name: entries.extractfile(entry).read() for entry in entries}  # type: ignore[union-attr]


def download(client: TestClient, job_id: str, choice: str | None = None) -> dict[str, bytes]:
    query = {"checkpoints": choice} if choice else {}
    answer = client.get(f"/api/v1/jobs/{job_id}/archive", params=query)
    assert answer.status_code == 200, answer.text
    return contents(answer.content)


def steps_of(files: dict[str, bytes]) -> list[int]:
    return [int(name.split("/")[1].split("-")[1]) for name in files if name.endswith("model.safetensors")]


def weights(job_id: str, step: int) -> Path:
    return storage.run(job_id) / "checkpoints" / f"step-{step}-1" / "model.safetensors"


def test_the_last_file_has_the_hash_of_every_other_one(alice_api: TestClient, job_id: str) -> None:
    files = download(alice_api, job_id)
    *others, last = files
    assert (others[0], last) == ("run.json", "MANIFEST.json")
    manifest = json.loads(files[last])
    assert (manifest["format"], manifest["format_version"]) == ("athanor-run", 1)
    hashes = {file["name"]: (file["size"], file["sha256"]) for file in manifest["files"]}
    assert hashes == {name: (len(files[name]), hashlib.sha256(files[name]).hexdigest()) for name in others}


def test_it_holds_the_best_and_the_last_checkpoint_or_all_or_none(alice_api: TestClient, job_id: str) -> None:
    chosen = {choice: steps_of(download(alice_api, job_id, choice)) for choice in (None, "all", "none")}
    assert chosen == {None: [20, 30], "all": [10, 20, 30], "none": []}
    described = json.loads(download(alice_api, job_id)["run.json"])["checkpoints"]
    assert [(entry["step"], "best" in entry["reasons"]) for entry in described] == [(20, True), (30, False)]


def test_a_checkpoint_fits_its_own_manifest_and_has_no_optimizer_state(alice_api: TestClient, job_id: str) -> None:
    files = download(alice_api, job_id)
    directory = json.loads(files["run.json"])["checkpoints"][0]["directory"]
    inside = {name.removeprefix(f"{directory}/") for name in files if name.startswith(directory)}
    listed = {file["name"] for file in json.loads(files[f"{directory}/MANIFEST.json"])["files"]}
    assert inside == {*listed, "MANIFEST.json"} == {"model.safetensors", "trainer_state.json", "MANIFEST.json"}


def test_it_holds_spec_curves_samples_and_tokenizer(alice_api: TestClient, job_id: str) -> None:
    files = download(alice_api, job_id, "none")
    assert TrainSpec.model_validate_json(files["spec.json"]) == factories.row(job_id).spec
    rows = list(csv.DictReader(files["metrics.csv"].decode().splitlines()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 31)]
    sample = {"step": 10, "split": "validation", "prompt": "In", "text": "the 起初\n"}
    assert json.loads(files["samples.jsonl"]) == sample
    assert files["tokenizer/tokenizer.json"] == b"{}"


def test_of_corpora_it_has_names_and_hashes_and_no_text(alice_api: TestClient, job_id: str, corpus: str) -> None:
    files = download(alice_api, job_id)
    described = json.loads(files["run.json"])
    (entry,) = described["corpora"]
    assert (entry["id"], entry["name"]) == (corpus, "Genèse")
    assert len(entry["text_sha256"]) == 64
    assert not any(factories.TEXT[:40].encode() in content for content in files.values())
    assert described["job"]["state"] == "cancelled"
    assert described["attempts"][0]["reached_step"] == 30
    assert b'"ada"' not in files["run.json"]  # the machine


def test_a_reader_of_a_shared_job_learns_nothing_of_its_corpus(
    alice: TestClient, bob_api: TestClient, job_id: str, corpus: str
) -> None:
    assert bob_api.get(f"/api/v1/jobs/{job_id}/archive").status_code == 404
    alice.put(f"/api/v1/shares/{job_id}", json={"users": ["Bob"], "everyone": False})
    (entry,) = json.loads(download(bob_api, job_id)["run.json"])["corpora"]
    assert {name: value for name, value in entry.items() if value is not None} == {"id": corpus}


def test_a_job_that_has_not_ended_is_not_exported(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/archive")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_open")


def test_a_missing_file_is_refused_before_anything_is_sent(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id = cancelled(alice_user, corpus)
    weights(job_id, 30).unlink()
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/archive")
    assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_missing")


@pytest.mark.parametrize("content", [bytes(64), bytes(63)], ids=["changed", "shorter"])
def test_a_damaged_file_breaks_the_archive_off(alice_user: Person, corpus: str, content: bytes) -> None:
    job_id = cancelled(alice_user, corpus)
    with db.transaction() as session:
        run = export.prepare(session, principal=alice_user.principal, job_id=job_id, choice="all")
    weights(job_id, 30).write_bytes(content)
    sent: list[bytes] = []
    with pytest.raises(FileChanged, match=r"step-30-1/model\.safetensors"):
        sent.extend(export.chunks(run))  # what came before the error stays in the list
    archive = b"".join(sent)
    assert b'"format_version"' not in archive[archive.index(b"step-30-1/model.safetensors") :]


def test_the_name_of_the_file_is_that_of_the_job(alice_api: TestClient, job_id: str) -> None:
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/archive?checkpoints=none")
    assert answer.headers["content-disposition"] == 'attachment; filename="First-n.tar"'
    assert answer.headers["content-type"] == "application/x-tar"


def test_the_page_of_a_job_that_has_ended_offers_the_archive(alice: TestClient, job_id: str) -> None:
    page = alice.get(f"/jobs/{job_id}").text
    assert page.count(f"/api/v1/jobs/{job_id}/archive?checkpoints=") == 3


def test_the_client_accepts_it(alice_api: TestClient, job_id: str, tmp_path: Path) -> None:
    path = tmp_path / "run.tar"
    path.write_bytes(alice_api.get(f"/api/v1/jobs/{job_id}/archive").content)
    verify(path)
