"""The pages of checkpoints: the list, and one with what it was made from."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.checkpoints import service
from app.core import db, storage
from app.core.models import Job, Tokenizer
from tests.users import Person
from trainer import run_dir
from trainer.spec import resolve


@dataclass(frozen=True)
class SavedCheckpoint:
    """Alice's checkpoint, whose weights are but a few bytes: no page reads them."""

    id: str
    job_id: str
    path: Path


def save_checkpoint(owner: Person, name: str, step: int) -> SavedCheckpoint:
    spec = resolve({"corpora": ["text"], "name": name})
    with db.transaction() as session:
        job = Job(
            owner_id=owner.id,
            name=name,
            recipe=spec.recipe,
            spec=spec,
            spec_sha256=spec.sha256(),
            body_sha256="",
            max_steps=spec.max_steps,
            facts={"num_parameters": 1_060_224},
        )
        session.add(job)
        session.flush()
        path = storage.run(job.id) / "checkpoints" / f"step-{step}-1"
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"weights")
        made_from = {
            "tokenizer_sha256": "a" * 64,
            "world_size": 2,
            "precision": "fp32",
            "versions": {"torch": "2.13.0"},
        }
        run_dir.write_manifest(path, made_from)
        checkpoint = service.record(
            session,
            owner_id=owner.id,
            job_id=job.id,
            step=step,
            fence=1,
            path=str(path.relative_to(storage.data())),
            manifest=run_dir.verify(path),
            metrics={"loss": 1.5, "eval_loss": 1.625},
        )
    return SavedCheckpoint(checkpoint.id, job.id, path)


@pytest.fixture(scope="module")
def checkpoint(alice_user: Person) -> SavedCheckpoint:
    return save_checkpoint(alice_user, "Furnace <one>", 200)


def test_the_list_shows_job_step_and_losses_and_leads_to_each(alice: TestClient, checkpoint: SavedCheckpoint) -> None:
    page = alice.get("/checkpoints").text

    assert "Furnace &lt;one&gt; · step 200" in page
    assert "1.6250" in page
    assert f'href="/checkpoints/{checkpoint.id}"' in page
    assert f'href="/playground?checkpoint={checkpoint.id}"' in page
    assert f'href="/api/v1/checkpoints/{checkpoint.id}/download"' in page


def test_the_list_can_be_filtered_by_job(alice: TestClient, alice_user: Person, checkpoint: SavedCheckpoint) -> None:
    other = save_checkpoint(alice_user, "Another", 10)
    page = alice.get(f"/checkpoints?job={other.job_id}").text

    assert f"/checkpoints/{other.id}" in page
    assert f"/checkpoints/{checkpoint.id}" not in page


def test_a_checkpoint_shows_its_files_and_its_origin(
    alice: TestClient, alice_user: Person, checkpoint: SavedCheckpoint
) -> None:
    with db.transaction() as session:
        session.add(Tokenizer(owner_id=alice_user.id, name="Bytes", vocab_size=300, sha256="a" * 64, corpora=[]))
    page = alice.get(f"/checkpoints/{checkpoint.id}").text

    assert "model.safetensors" in page
    assert ">Bytes</a>" in page
    assert "1.06 M" in page
    assert 'path = "Furnace-one-step-200"' in page


def test_other_users_and_visitors_see_no_checkpoint(
    bob: TestClient, visitor: TestClient, checkpoint: SavedCheckpoint
) -> None:
    assert bob.get(f"/checkpoints/{checkpoint.id}").status_code == 404
    assert checkpoint.id not in bob.get("/checkpoints").text
    assert visitor.get(f"/checkpoints/{checkpoint.id}").headers["location"].startswith("/login")


def test_without_checkpoints_the_list_links_to_a_first_job(bob: TestClient) -> None:
    page = bob.get("/checkpoints").text

    assert "No checkpoints yet" in page
    assert 'href="/jobs/new"' in page


def test_a_checkpoint_without_files_offers_neither_download_nor_playground(
    alice: TestClient, alice_user: Person
) -> None:
    lost = save_checkpoint(alice_user, "Lost", 5)
    shutil.rmtree(lost.path)
    page = alice.get(f"/checkpoints/{lost.id}").text

    assert "gone from the disk" in page
    assert "/download" not in page
