"""F48 to F51, F63: pauses while saving, full disks, damaged and incomplete checkpoints."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults import invariants
from tests.faults.runs import Golden, Run, Submit, repeated_steps
from tests.faults.stack import Installation
from tests.faults.writers import Writers
from tests.row_table import Report
from tests.waiting import until
from trainer.run_dir import MANIFEST, sha256_file, verify


def pause_after(run: Run, step: int) -> None:
    """Wait for a step, pause the job, and wait until it is paused."""
    run.until_step(step)
    assert run.post("pause").status_code == 202
    run.until("paused")
    assert not run.gang()


@pytest.mark.row("F48-1", "pause while saving")
def test_a_pause_while_saving_does_not_change_the_result(submit: Submit, golden: Golden, report: Report) -> None:
    expected = golden()
    run = submit()
    until(run.saving, 60, "a checkpoint being written")
    run.post("pause")
    run.until("paused")
    run.post("resume")
    run.end()
    invariants.check(run, expected)
    report(f"paused, resumed, {repeated_steps(run.attempts())} steps repeated")


@pytest.mark.row("F48-2", "pause and resume five times")
@pytest.mark.faults_core
def test_five_pauses_do_not_change_the_result(submit: Submit, golden: Golden, report: Report) -> None:
    expected = golden(max_steps=300)
    run = submit(max_steps=300)
    for step in (5, 45, 85, 125, 165):
        pause_after(run, step)
        assert run.post("resume").status_code == 202
    run.end()
    assert len(run.attempts()) == 6
    assert repeated_steps(run.attempts()) == 0
    invariants.check(run, expected)
    report("6 attempts, 0 steps repeated")


@pytest.mark.row("F49-1", "the disk is full at the second checkpoint")
def test_a_checkpoint_without_disk_space_is_reported_and_training_continues(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    installation.inject_faults("full@40")
    run = submit()
    run.end()
    assert [row["step"] for row in run.checkpoints()] == [20, 60, 80, 100, 120]
    assert "save_failed" in run.reasons()
    assert len(run.attempts()) == 1
    invariants.check(run, expected)
    report(run.message("save_failed"))


@pytest.mark.row("F49-2", "the disk stays full for three checkpoints")
def test_a_disk_that_stays_full_pauses_the_job_and_keeps_the_last_checkpoint(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    installation.inject_faults("full@40,full@60,full@80")
    run = submit()
    run.until("paused")
    assert "disk_full" in run.reasons()
    verify(run.stack.data / run.checkpoints()[0]["path"])
    run.post("resume")
    run.end()
    invariants.check(run, expected)
    report(run.message("disk_full"))


def flip(checkpoint: Path) -> None:
    """One bit of the weights."""
    path = next(checkpoint.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(checkpoint: Path) -> None:
    """The end of the weights is missing."""
    path = next(checkpoint.glob("*.safetensors"))
    os.truncate(path, path.stat().st_size - 100)


def delete(checkpoint: Path) -> None:
    """A file is missing."""
    next(checkpoint.glob("*.safetensors")).unlink()


def empty(checkpoint: Path) -> None:
    """The manifest is empty."""
    (checkpoint / MANIFEST).write_text("")


def forge(checkpoint: Path) -> None:
    """Files and manifest agree, but both were replaced."""
    flip(checkpoint)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    for entry in manifest["files"]:
        path = checkpoint / entry["name"]
        entry.update(size=path.stat().st_size, sha256=sha256_file(path))
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, marks=pytest.mark.row(f"F50-{number}", f"the newest checkpoint: {damage.__doc__}"))
        for number, damage in enumerate((flip, truncate, delete, empty, forge), start=1)
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_next_older_one(
    submit: Submit, golden: Golden, report: Report, damage: Callable[[Path], None]
) -> None:
    expected = golden()
    run = submit()
    pause_after(run, 45)
    older, newest = run.checkpoints()[-2:]
    damage(run.stack.data / newest["path"])
    run.post("resume")
    run.end()
    assert run.attempts()[1]["resume_step"] == older["step"]
    assert (run.stack.data / newest["path"]).exists()
    states = {row["step"]: row["state"] for row in run.checkpoints() if row["fence"] == 1}
    assert states[newest["step"]] == "corrupt"
    invariants.check(run, expected)
    report(run.message("checkpoint_corrupt"))


@pytest.mark.row("F50-6", "every checkpoint is damaged")
def test_if_every_checkpoint_is_damaged_nothing_is_deleted(submit: Submit, report: Report) -> None:
    run = submit()
    pause_after(run, 45)
    for row in run.checkpoints():
        flip(run.stack.data / row["path"])
    run.post("resume")
    failure = run.end("failed")["failure"]
    assert all((run.stack.data / row["path"]).exists() for row in run.checkpoints())
    invariants.no_process_is_left(run)
    invariants.every_cause_is_a_sentence(run)
    report(failure["cause"])


@pytest.mark.row("F63", "the text changed while the job was paused")
def test_a_job_with_changed_text_is_rejected_before_training(submit: Submit, corpus: str, report: Report) -> None:
    run = submit()
    pause_after(run, 25)
    text = run.stack.data / "corpora" / corpus / "text.bin"
    genuine = text.read_bytes()
    shutil.rmtree(run.stack.data / "cache")
    try:
        text.write_bytes(genuine.replace(b"sheep", b"goats"))
        run.post("resume")
        failure = run.end("failed")["failure"]
    finally:
        text.write_bytes(genuine)
        shutil.rmtree(run.stack.data / "cache", ignore_errors=True)
    assert failure["code"] in ("data_changed", "tokenizer_mismatch")
    invariants.no_process_is_left(run)
    report(failure["cause"])


@pytest.mark.row("F51", "200 SIGKILLs while checkpoints are written and published")
@pytest.mark.faults_core
def test_two_hundred_kills_during_saves_corrupt_no_published_checkpoint(tmp_path: Path, report: Report) -> None:
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    num_torn, num_published, num_halfway = 0, 0, 0
    with Writers(tmp_path) as writers:
        for number in range(200):
            home = tmp_path / f"{number}"
            writer = psutil.Process(writers.fork(number))
            until(lambda home=home: home.exists(), 20, "a save")  # type: ignore[misc]
            moment = time.monotonic() + moments.uniform(0, 0.1)
            while time.monotonic() < moment:
                pass
            writer.kill()
            until(lambda writer=writer: not writer.is_running(), 10, "its end")  # type: ignore[misc]
            num_halfway += any(not (path / MANIFEST).exists() for path in home.glob("attempt/*"))
            for checkpoint in home.glob("checkpoints/*"):
                num_published += 1
                num_torn += not is_complete(checkpoint)
            shutil.rmtree(home)
    report(f"{num_published} published, {num_torn} torn; {num_halfway} kills hit a save halfway; seed {seed}")
    assert num_torn == 0
    assert num_halfway >= 20


def is_complete(checkpoint: Path) -> bool:
    """Whether a published checkpoint verifies."""
    try:
        return bool(verify(checkpoint))
    except ValueError:
        return False
