"""What an attempt resumes from: only intact files, no verdict if the disk cannot be read, and the same tokenizer."""

import hashlib
import shutil
from pathlib import Path

import pytest

from app.core import db, storage
from app.jobs.attempts import attempts
from app.jobs.attempts.attempts import Saved
from app.jobs.planning.base_model import ModelFiles
from tests.app.jobs import factories
from tests.users import Person
from trainer import events
from worker.supervisor.attempt import inputs
from worker.supervisor.resume_point import ResumePoint, StorageUnreachable, find_damage


@pytest.fixture
def place(database: str) -> ModelFiles:
    directory = storage.base_model("x")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "config.json").write_bytes(b"{}")
    return ModelFiles("base_models/x", {"config.json": hashlib.sha256(b"{}").hexdigest()})


def test_an_intact_base_model_is_accepted(place: ModelFiles) -> None:
    assert find_damage(place) is None


def test_a_changed_or_missing_file_is_named(place: ModelFiles) -> None:
    path = storage.base_model("x") / "config.json"
    path.write_bytes(b"[]")
    assert find_damage(place) == "config.json differs from what was checked"
    path.unlink()
    assert find_damage(place) == "config.json is missing"
    path.parent.rmdir()
    assert find_damage(place) == "config.json is missing"
    assert find_damage(None) == "it was deleted"


def test_an_unmounted_data_directory_is_not_damage(place: ModelFiles, tmp_path: Path) -> None:
    root = storage.data() / "base_models"
    root.rename(tmp_path / "aside")
    with pytest.raises(StorageUnreachable):
        find_damage(place)


def test_an_attempt_that_resumes_keeps_the_tokenizer_of_its_job(alice_user: Person) -> None:
    """A newer version may train another tokenizer from the same text, to which the checkpoint would be no use."""
    factories.node()
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    with db.transaction() as session:
        work = attempts.assignment(session, job_id=job_id, fence=fence)
        event = events.TokenizerEvent(seq=1, at=1.0, path="tokenizer", sha256="0" * 64, vocab_size=300, trained=True)
        tokenizer_id = attempts.record_tokenizer(session, job_id=job_id, fence=fence, event=event, work=work)
        work = attempts.assignment(session, job_id=job_id, fence=fence)
    resumed = inputs(work, ResumePoint(Saved("c", 10, f"runs/{job_id}/checkpoints/step-10-1")))
    assert resumed.tokenizer == str(storage.tokenizer(tokenizer_id))
    assert inputs(work, ResumePoint(None)).tokenizer is None
