"""Real supervisors over real training that is disturbed: whatever happens, the job ends with the same weights."""

import os
import shutil
import signal
from typing import Any

import psutil
import pytest
from sqlalchemy import update

from app.core import db, storage
from app.core.json_shapes import Adjustments
from app.core.models import Checkpoint, Job
from app.jobs import service
from app.jobs.attempts import replay
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.waiting import until
from tests.worker.supervised_job import SMALL, SupervisedJob

pytestmark = pytest.mark.usefixtures("fork_server")

STEPS, SAVE = 60, 20
GOLDEN: dict[str, Any] = {**SMALL, "max_steps": STEPS, "save_steps": SAVE}
FAULT = "ATHANOR_FAULT"


@pytest.fixture(scope="module")
def golden(database: str) -> dict[int, str]:
    """The hash of the weights that undisturbed runs end with, by world size, as they become known."""
    return {}


@pytest.fixture
def expected(golden: dict[int, str], start: Any) -> Any:
    """The hash for a world size."""

    def known(num_processes: int = 1) -> str:
        if num_processes not in golden:
            attempt = start(**GOLDEN, num_processes=num_processes)
            assert attempt.ended().state == "succeeded", attempt.log()
            golden[num_processes] = attempt.weights()
        return golden[num_processes]

    return known


def rank_of(attempt: SupervisedJob) -> psutil.Process:
    return next(p for p in attempt.processes() if p.parent() in attempt.processes())


def finish(attempt: SupervisedJob, steps: int = STEPS) -> None:
    """Whatever comes, to the end."""
    while attempt.ended().state == "recovering":
        attempt.again()
    assert attempt.job.state == "succeeded", attempt.log()
    assert attempt.steps() == list(range(1, steps + 1))


@pytest.mark.parametrize(("fault", "num_processes"), [("kill@33", 2), ("segv@21", 1), ("abort@59", 2), ("exit@1", 1)])
def test_a_killed_trainer_resumes_with_the_same_bits(
    start: Any, expected: Any, monkeypatch: pytest.MonkeyPatch, fault: str, num_processes: int
) -> None:
    wanted = expected(num_processes)
    monkeypatch.setenv(FAULT, fault)
    attempt = start(**GOLDEN, num_processes=num_processes)
    finish(attempt)
    assert attempt.weights() == wanted
    died_at = int(fault.partition("@")[2])
    assert attempt.attempt().resume_step == (died_at - 1) // SAVE * SAVE


def test_repeated_steps_prove_that_the_resume_is_exact(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT, "kill@33")
    attempt = start(**GOLDEN)
    finish(attempt)
    latest = attempt.attempt()
    repeated = latest.replay.until - SAVE
    assert 0 < repeated <= 12
    assert (replay.determinism_verdict(latest), latest.replay.steps, latest.replay.different) == (
        "exact",
        repeated,
        0,
    )
    assert ("starting", "resumed") in factories.reasons(attempt.job_id)


def test_one_flipped_bit_is_flagged(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT, f"kill@33,flip@{SAVE}!")
    attempt = start(**GOLDEN)
    finish(attempt)
    latest = attempt.attempt()
    assert replay.determinism_verdict(latest) == "different"
    assert latest.replay.first[0] == SAVE + 1


def test_a_pause_frees_the_node_and_a_resume_has_the_same_bits(start: Any) -> None:
    steps = 600  # so many that each pause arrives long before the last
    undisturbed = start(**{**GOLDEN, "max_steps": steps})
    assert undisturbed.ended().state == "succeeded", undisturbed.log()
    assert effective_spec(undisturbed.job).precision == "fp32"  # was left open, and is decided once
    attempt = start(**{**GOLDEN, "max_steps": steps})
    for step in (5, 25, 45):
        attempt.until_step(step)
        attempt.request(service.pause)
        job = attempt.ended()
        assert (job.state, job.node) == ("paused", None), attempt.log()
        assert attempt.processes() == []
        assert attempt.saved()[-1].step == job.step
        attempt.request(service.resume)
        assert attempt.job.state == "queued"
        attempt.claim()
    finish(attempt, steps)
    assert attempt.weights() == undisturbed.weights()
    assert ("pausing", "wish_pause") in factories.reasons(attempt.job_id)


def test_a_hung_trainer_is_detected_with_its_stacks_and_its_job_resumes(
    start: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = expected(2)
    monkeypatch.setenv("ATHANOR_STEP_SECONDS", "1")
    monkeypatch.setenv(FAULT, "spin@27")
    attempt = start(**GOLDEN, num_processes=2)
    job = attempt.ended()
    assert (job.state, attempt.attempt().exit_kind) == ("recovering", "hang"), attempt.log()
    assert attempt.attempt().exit_data == {"step": 27}
    log = attempt.log()
    assert "fault_injection.py" in log  # where it hangs
    assert log.count("most recent call first") >= 3  # the gang and both ranks
    attempt.again()
    finish(attempt)
    assert attempt.weights() == wanted


def test_a_stopped_process_counts_as_a_hang(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHANOR_STEP_SECONDS", "1")
    monkeypatch.setenv("ATHANOR_FIRST_STEP_SECONDS", "10")  # it may be stopped in the middle of a save
    attempt = start(**{**GOLDEN, "max_steps": 600})
    attempt.until_step(25)
    rank_of(attempt).suspend()
    assert attempt.ended().state == "recovering", attempt.log()
    assert attempt.attempt().exit_kind == "hang"
    attempt.again()
    assert attempt.ended().state == "succeeded", attempt.log()
    assert attempt.steps() == list(range(1, 601))
    assert replay.determinism_verdict(attempt.attempt()) in (
        "exact",
        None,
    )  # none if it was stopped right after a save


def spoil(row: Checkpoint, how: str) -> None:
    directory = storage.checkpoint(row.path)
    weights = directory / "model.safetensors"
    if how == "flipped":
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    elif how == "truncated":
        os.truncate(weights, weights.stat().st_size // 2)
    elif how == "deleted":
        weights.unlink()
    elif how == "empty manifest":
        (directory / "MANIFEST.json").write_text("")
    elif how == "wrong signature":
        path = directory / "SIGNATURE"
        path.write_text(path.read_text().replace('"hmac_sha256": "', '"hmac_sha256": "0'))
    else:
        shutil.rmtree(directory)


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted", "empty manifest", "wrong signature", "gone"])
def test_a_damaged_checkpoint_is_skipped_for_the_next_older_one(
    start: Any, expected: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wanted = expected()
    monkeypatch.setenv(FAULT, "kill@55")
    attempt = start(**GOLDEN)
    assert attempt.ended().state == "recovering"
    older, newest = attempt.saved()
    spoil(newest, how)
    attempt.again()
    finish(attempt)
    assert attempt.attempt().resumed_from == older.id
    assert attempt.weights() == wanted
    with db.transaction() as session:
        assert session.get_one(Checkpoint, newest.id).state == "corrupt"
    assert ("starting", "checkpoint_corrupt") in factories.reasons(attempt.job_id)


def test_without_an_intact_checkpoint_the_job_fails_and_nothing_is_deleted(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULT, "kill@55")
    attempt = start(**GOLDEN)
    assert attempt.ended().state == "recovering"
    rows = attempt.saved()
    for row in rows:
        spoil(row, "flipped")
    attempt.again()
    job = attempt.ended()
    assert (job.state, job.failure_code) == ("failed", "no_valid_ckpt"), attempt.log()
    assert all(storage.checkpoint(row.path).is_dir() for row in rows)


def test_running_out_of_memory_halves_the_micro_batch_until_it_fits(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULT, "oom@30>1")
    attempt = start(**GOLDEN)
    job = attempt.ended()
    assert (job.state, job.no_progress, job.adjustments) == ("recovering", 0, Adjustments(per_device_batch_size=1))
    attempt.again()
    finish(attempt)
    latest = attempt.attempt()
    assert latest.replay.differs == ["per_device_batch_size"]
    assert replay.determinism_verdict(latest) == "equivalent"


def test_running_out_of_memory_at_every_micro_batch_fails_the_job(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT, "oom@30!")
    attempt = start(**GOLDEN)
    assert attempt.ended().state == "recovering"
    attempt.again()
    job = attempt.ended()
    assert (job.state, job.failure_code, job.failure["step"]) == ("failed", "oom_host", 30)


def test_a_diverging_step_is_skipped_if_the_spec_says_so(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULT, "nan@30!")
    attempt = start(**GOLDEN, on_divergence="skip")
    job = attempt.ended()
    assert (job.state, job.adjustments) == ("recovering", Adjustments(skipped_steps=[30]))
    attempt.again()
    finish(attempt)
    assert attempt.job.fence == 2


def test_a_disk_full_three_times_pauses_the_job_until_there_is_space(
    start: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = expected()
    monkeypatch.setenv(FAULT, "full@20,full@40,full@60")
    attempt = start(**{**GOLDEN, "save_steps": 20})
    job = attempt.ended()
    assert attempt.job.notice.code == "disk_full", attempt.log()
    assert job.desired == "pause"
    assert job.state in ("recovering", "paused")  # paused if the supervisor saw the request before its trainer ended
    with db.transaction() as session:
        dispatch.requeue_or_fail(session)
    assert attempt.job.state == "paused"
    attempt.request(service.resume)
    assert attempt.job.notice is None
    attempt.claim()
    finish(attempt)
    assert attempt.weights() == wanted


def test_a_supervisor_killed_while_pausing_leaves_a_paused_job(start: Any) -> None:
    attempt = start(**{**GOLDEN, "max_steps": 10_000})
    attempt.until_step(5)
    rank_of(attempt).suspend()
    attempt.request(service.pause)
    until(lambda: attempt.job.state == "pausing", 20, attempt.log())
    attempt.process.send_signal(signal.SIGKILL)
    attempt.process.wait()
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == attempt.job_id).values(lease_until=attempt.job.created_at))
        dispatch.expire_leases(session)
        dispatch.requeue_or_fail(session)
    assert attempt.job.state == "paused"
    for process in attempt.processes():
        process.kill()
