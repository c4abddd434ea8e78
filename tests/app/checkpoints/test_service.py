"""Checkpoints: kept once, listed to their owner, downloaded as an archive that any tool opens."""

import io
import re
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from app.checkpoints import service, signature
from app.core import db, storage
from app.core.models import Checkpoint
from tests.app.jobs import factories
from tests.users import Person
from trainer import run_dir

RESUME = {"resume/optimizer-0.safetensors": b"moments", "resume/trainer.json": b"{}"}
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9000, "tokenizer.json": "字".encode()}


@pytest.fixture(scope="module")
def job_id(alice_user: Person) -> str:
    factories.node()
    return factories.started(alice_user, factories.corpus(alice_user), name="Genesis, 第一 try/2")[0]


def saved(owner: Person, job_id: str, step: int, files: dict[str, bytes]) -> Checkpoint:
    """A published checkpoint with these files."""
    path = Path("runs") / job_id / "checkpoints" / f"step-{step}-1"
    directory = storage.checkpoint(str(path))
    directory.mkdir(parents=True)
    (directory / "resume").mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    run_dir.write_manifest(directory, {"step": step})
    signature.sign(directory, job_id=job_id, owner_id=owner.id, fence=1, step=step)
    with db.transaction() as session:
        manifest = run_dir.verify(directory)
        given: dict[str, Any] = {"path": str(path), "manifest": manifest, "metrics": {"loss": 1.5}}
        return service.record(session, owner_id=owner.id, job_id=job_id, step=step, fence=1, **given)


@pytest.fixture(scope="module")
def checkpoint(alice_user: Person, job_id: str) -> Checkpoint:
    return saved(alice_user, job_id, 200, {**FILES, **RESUME})


def test_a_checkpoint_is_described_with_its_manifest(alice_api: TestClient, checkpoint: Checkpoint) -> None:
    answer = alice_api.get(f"/api/v1/checkpoints/{checkpoint.id}").json()
    assert (answer["step"], answer["metrics"]) == (200, {"loss": 1.5})
    assert answer["num_bytes"] == sum(map(len, {**FILES, **RESUME}.values()))
    assert {entry["name"] for entry in answer["manifest"]["files"]} == set(FILES) | set(RESUME)


def test_the_archive_has_only_public_files_and_a_matching_manifest(
    alice_api: TestClient, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    answer = alice_api.get(f"/api/v1/checkpoints/{checkpoint.id}/download")
    assert answer.headers["Content-Type"] == "application/zip"
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="')
    assert disposition.endswith("filename*=UTF-8''Genesis-%E7%AC%AC%E4%B8%80-try-2-step-200.zip")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert {name: archive.read(name) for name in FILES} == FILES
    assert set(archive.namelist()) == {*FILES, "MANIFEST.json"}
    archive.extractall(tmp_path)
    assert run_dir.verify(tmp_path)["step"] == 200
    assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert not [name for name in archive.namelist() if re.search(r"^/|\.\.|^runs", name)]


def test_a_large_archive_is_streamed_in_little_memory(alice_user: Person, job_id: str) -> None:
    directory = storage.checkpoint(saved(alice_user, job_id, 300, {"model.safetensors": b"w"}).path)
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(300 * 2**20)
    with db.transaction() as session:
        rows, _ = service.list_checkpoints(session, principal=alice_user.principal, job_id=job_id)
    row = next(row for row in rows if row.step == 300)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(map(len, service.zip_chunks(row)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert total > 300 * 2**20
    assert grown < 32 * 2**20


def test_missing_files_are_reported_before_a_download_starts(
    alice_api: TestClient, alice_user: Person, job_id: str
) -> None:
    row = saved(alice_user, job_id, 400, {"config.json": b"{}", "model.safetensors": b"w"})
    (storage.checkpoint(row.path) / "model.safetensors").unlink()
    answer = alice_api.get(f"/api/v1/checkpoints/{row.id}/download")
    assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_missing")
    assert "model.safetensors" in answer.json()["title"]


def test_checkpoints_of_another_user_are_not_found(bob_api: TestClient, checkpoint: Checkpoint) -> None:
    assert bob_api.get("/api/v1/checkpoints").json() == {"data": [], "next": None}
    for route in ("", "/download"):
        assert bob_api.get(f"/api/v1/checkpoints/{checkpoint.id}{route}").status_code == 404


def test_checkpoints_are_listed_by_job_newest_first(
    alice_api: TestClient, alice_user: Person, job_id: str, checkpoint: Checkpoint
) -> None:
    other = factories.submitted(alice_user, factories.corpus(alice_user))
    saved(alice_user, other, 7, {"config.json": b"{}"})
    listed = alice_api.get("/api/v1/checkpoints", params={"job": other}).json()["data"]
    assert [row["step"] for row in listed] == [7]
    everything = alice_api.get("/api/v1/checkpoints").json()["data"]
    assert everything[0]["step"] == 7
    assert checkpoint.id in [row["id"] for row in everything]


def test_recording_a_checkpoint_is_idempotent(alice_user: Person, job_id: str, checkpoint: Checkpoint) -> None:
    with db.transaction() as session:
        again = service.record(
            session,
            owner_id=alice_user.id,
            job_id=job_id,
            step=200,
            fence=1,
            path="elsewhere",
            manifest={"files": []},
            metrics={},
        )
        assert (again.id, again.path) == (checkpoint.id, checkpoint.path)


def test_transformers_opens_the_unpacked_archive(
    alice_api: TestClient, alice_user: Person, job_id: str, tmp_path: Path
) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "made")
    weights = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    row = saved(alice_user, job_id, 500, {**weights, **RESUME})
    answer = alice_api.get(f"/api/v1/checkpoints/{row.id}/download")
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path / "unpacked")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "unpacked")
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.parameters(), opened.parameters(), strict=True))
