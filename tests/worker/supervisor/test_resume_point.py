"""The checkpoint that an attempt resumes from: only intact files, and no verdict if the disk cannot be read."""

import hashlib
import shutil
from pathlib import Path

import pytest

from app.core import storage
from app.jobs.planning.base_model import ModelFiles
from worker.supervisor.resume_point import StorageUnreachable, find_damage


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
