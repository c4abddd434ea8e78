"""F38, F39, F53 to F55, F64, F65: hangs, crashes, exits, bad losses and lack of memory in training processes."""

import signal
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.runs import LONG, Golden, Run, Submit, repeated_steps
from tests.faults.stack import Installation
from tests.row_table import Report
from tests.waiting import until


def setbacks(run: Run) -> list[str]:
    """The reasons why attempts of a job were lost."""
    return [entry["reason"] for entry in run.history() if entry["to"] == "recovering"]


@pytest.mark.row("F38", "SIGSTOP the trainer for good")
def test_a_stopped_trainer_counts_as_hung_and_the_job_resumes(submit: Submit, golden: Golden, report: Report) -> None:
    expected = golden(max_steps=LONG)
    run = submit(max_steps=LONG)
    run.until_step(27)
    run.signal_ranks(signal.SIGSTOP)
    run.end()
    assert setbacks(run) == ["hang"]
    invariants.check(run, expected)
    report(f"{setbacks(run)}; {repeated_steps(run.attempts())} steps repeated")


@pytest.mark.row("F38-2", "one of two ranks waits forever")
def test_one_of_two_ranks_waiting_forever_counts_as_a_hang(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden(2)
    installation.inject_faults("hang@27")
    run = submit(num_processes=2)
    run.end()
    assert setbacks(run) == ["hang"]
    invariants.check(run, expected)
    report(f"{setbacks(run)}; {repeated_steps(run.attempts())} steps repeated")


@pytest.mark.row("F38-3", "the interpreter lock is never released")
def test_a_trainer_holding_the_gil_is_detected_as_hung(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    installation.inject_faults("spin@27")
    run = submit()
    run.end()
    assert setbacks(run) == ["hang"]
    assert "most recent call first" in run.logs()
    invariants.check(run, expected)
    report(f"{setbacks(run)}, stacks in the log; {repeated_steps(run.attempts())} steps repeated")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        pytest.param("segv", "trainer_segfault", marks=pytest.mark.row("F39-1", "the trainer reads address 0")),
        pytest.param("abort", "trainer_abort", marks=pytest.mark.row("F39-2", "the trainer aborts")),
        pytest.param("exit", "trainer_exit", marks=pytest.mark.row("F39-3", "the trainer exits with 1")),
    ],
)
def test_a_trainer_that_exits_is_retried_and_the_history_names_its_exit(
    installation: Installation, submit: Submit, golden: Golden, report: Report, kind: str, reason: str
) -> None:
    expected = golden()
    installation.inject_faults(f"{kind}@27")
    run = submit()
    run.end()
    assert setbacks(run) == [reason]
    invariants.check(run, expected)
    report(run.message(reason))


@pytest.mark.row("F39-4", "the trainer raises an exception")
def test_an_exception_of_the_trainer_is_not_retried(installation: Installation, submit: Submit, report: Report) -> None:
    installation.inject_faults("raise@27")
    run = submit()
    failure = run.end("failed")["failure"]
    assert failure["code"] == "trainer_bug"
    assert len(run.attempts()) == 1
    assert "injected by a test" in run.stack.get(f"/api/v1/jobs/{run.id}/log").json()["text"]
    invariants.check(run)
    report(failure["cause"])


@pytest.mark.row("F53", "the trainer dies at step 3, always")
@pytest.mark.faults_core
def test_a_job_without_progress_fails_after_three_attempts(
    installation: Installation, submit: Submit, report: Report
) -> None:
    installation.inject_faults("kill@3!")
    run = submit()
    failure = run.end("failed")["failure"]
    assert failure["code"] == "crash_loop"
    assert len(run.attempts()) == 3
    invariants.check(run)
    report(failure["cause"])


@pytest.mark.row("F54-1", "the loss is NaN at step 30")
def test_a_non_finite_loss_stops_the_job_and_offers_the_last_checkpoint(
    installation: Installation, submit: Submit, report: Report
) -> None:
    installation.inject_faults("nan@30!")
    run = submit()
    failure = run.end("failed")["failure"]
    assert failure["code"] == "nan_loss"
    text = installation.get(f"/api/v1/jobs/{run.id}/metrics").text
    assert "NaN" not in text
    assert [row["step"] for row in run.checkpoints()] == [20]
    invariants.check(run)
    report(failure["cause"])


@pytest.mark.row("F54-2", "the loss jumps a hundredfold at step 30; policy: skip")
def test_a_loss_spike_is_skipped_if_the_spec_says_so(
    installation: Installation, submit: Submit, report: Report
) -> None:
    installation.inject_faults("spike@30!")
    run = submit(on_divergence="skip")
    run.end()
    assert setbacks(run) == ["step_skipped"]
    invariants.check(run)
    report(run.message("step_skipped"))


@pytest.mark.row("F55", "out of memory at step 12 while the micro-batch exceeds 2")
def test_a_job_that_runs_out_of_memory_resumes_with_smaller_micro_batches(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    golden()
    installation.inject_faults("oom@12>2")
    run = submit()
    run.end()
    assert setbacks(run) == ["oom_host_retry"]
    invariants.check(run)
    report(run.message("oom_host_retry"))


@pytest.mark.row("F65", "kill one of two ranks")
@pytest.mark.faults_core
def test_a_killed_rank_stops_the_others_and_all_resume_together(submit: Submit, golden: Golden, report: Report) -> None:
    expected = golden(2)
    run = submit(num_processes=2)
    run.until_step(27)
    ranks = run.ranks()
    ranks[-1].kill()
    until(lambda: not any(process.is_running() for process in ranks), 10, "the end of both ranks")
    run.end()
    assert len(setbacks(run)) == 1
    invariants.check(run, expected)
    report(f"{setbacks(run)}; {repeated_steps(run.attempts())} steps repeated")


def losses(run: Run) -> dict[int, Any]:
    """The loss of each step, by step."""
    query = "SELECT step, value FROM metric_point WHERE job_id = %s AND series = 'loss' AND NOT archived"
    return {row["step"]: row["value"] for row in run.stack.rows(query, run.id)}


@pytest.mark.row("F64", "resume with another number of processes: 2 to 1, and 1 to 2")
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_checkpoint_resumes_on_another_number_of_processes(
    submit: Submit, report: Report, before: int, after: int
) -> None:
    one_attempt = submit(num_processes=before)
    one_attempt.end()
    middle = next(row["id"] for row in one_attempt.checkpoints() if row["step"] == 60)
    branch = submit(num_processes=after, resume_from_checkpoint=middle)
    branch.end()
    first, second = losses(one_attempt), losses(branch)
    worst = max(abs(second[step] - first[step]) / first[step] for step in range(61, 111))
    assert worst < 1e-4
    report(f"{before} to {after}: losses differ by at most {worst:.1e} over 50 steps")
