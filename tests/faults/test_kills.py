"""F1 to F36: each process is killed in each state, and the job ends with the weights of an undisturbed run."""

import signal
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.runs import SAVE_STEPS, STEPS, Golden, Run, Submit, repeated_steps
from tests.faults.stack import SERVERS, Installation
from tests.row_table import Report
from tests.waiting import until

ROLES = ("trainer", "supervisor", "worker", "web", "valkey", "postgres")
STATES = ("queued", "starting", "running", "saving", "pausing", "cancelling")
CORE = (("trainer", "running"), ("supervisor", "running"), ("worker", "running"), ("postgres", "running"))


def rows() -> list[Any]:
    """The parameters of F1 to F36."""
    parameters = []
    for number, (role, state) in enumerate(((role, state) for role in ROLES for state in STATES), start=1):
        marks = [pytest.mark.row(f"F{number}", f"kill -9 {role} while {state}")]
        if (role, state) in CORE:
            marks.append(pytest.mark.faults_core)
        parameters.append(pytest.param(role, state, marks=marks, id=f"{role}-{state}"))
    return parameters


def bring_to(run: Run, state: str) -> None:
    """Bring a job to a state, and keep it there where that is possible from outside."""
    if state == "queued":
        until(lambda: run.state() == "queued", what="a queued job")
    elif state == "starting":
        until(run.supervisor, 30, "a supervisor")  # before that, only the scheduler could recover the job
        run.trainer()
    else:
        run.until_step(SAVE_STEPS + 7)
        if state == "saving":
            until(run.saving, what="a checkpoint being written")
        elif state in ("pausing", "cancelling"):
            run.signal_ranks(signal.SIGSTOP)  # so that it is not paused or cancelled before the fault
            assert run.post({"pausing": "pause", "cancelling": "cancel"}[state]).status_code == 202
            run.until(state)


@pytest.mark.parametrize(("role", "state"), rows())
def test_a_killed_part_costs_at_most_the_steps_since_the_last_checkpoint(
    installation: Installation,
    submit: Submit,
    golden: Golden,
    report: Report,
    role: str,
    state: str,
) -> None:
    expected = golden(1)
    if state == "queued":
        installation.suspend("scheduler")  # so that the job is not placed
    run = submit()
    bring_to(run, state)
    run.kill9(role)
    if state in ("pausing", "cancelling"):
        run.signal_ranks(signal.SIGCONT)
    if role == "postgres" and state in ("running", "saving"):
        check_training_continues(run)
    if role in installation.programs or role in SERVERS:
        installation.restart(role)
    if state == "queued":
        installation.until_fork_server()
        installation.resume("scheduler")
    follow(run, state)
    attempts = run.attempts()
    if role not in ("trainer", "supervisor") and state in ("starting", "running", "saving"):
        assert len(attempts) == 1, run.reasons()
        assert repeated_steps(attempts) == 0
    # A checkpoint that its supervisor has not published yet is lost with it.
    invariants.check(run, expected if state != "cancelling" else None, intervals=2 if role == "supervisor" else 1)
    report(f"{len(attempts)} attempts, {repeated_steps(attempts)} steps repeated, {run.state()}")


def check_training_continues(run: Run) -> None:
    """Check that the trainer continues while the database is down."""
    run.until_step(min(run.last_step() + 5, STEPS))


def follow(run: Run, state: str) -> None:
    """Wait for the end of a job that was in this state; a paused job is resumed first."""
    if state == "cancelling":
        run.until("cancelled")
        return
    if state == "pausing":
        run.until("paused")
        assert not run.gang()
        assert run.post("resume").status_code == 202
    run.end()


@pytest.mark.parametrize(
    ("point", "attempts"),
    [
        pytest.param("claimed", 2, marks=pytest.mark.row("F14-2", "worker killed between claim and supervisor")),
        pytest.param("published", 2, marks=pytest.mark.row("F10-2", "supervisor killed between publishing and row")),
        pytest.param("recorded", 2, marks=pytest.mark.row("F10-3", "supervisor killed after it recorded a checkpoint")),
        pytest.param("concluding", 2, marks=pytest.mark.row("F10-4", "supervisor killed before it ends the attempt")),
    ],
)
def test_a_kill_at_a_failpoint_costs_one_more_attempt(
    installation: Installation,
    submit: Submit,
    golden: Golden,
    report: Report,
    point: str,
    attempts: int,
) -> None:
    expected = golden(1)
    installation.arm(point)
    run = submit()
    until(lambda: installation.reached(point), 60, f"a death at {point}")
    if point == "claimed":
        installation.kill9("worker")  # it is exiting at the failpoint
        installation.restart("worker")
        installation.until_fork_server()
    run.end()
    assert len(run.attempts()) == attempts
    # So small a model may save once more before its supervisor publishes the first.
    invariants.check(run, expected, intervals=2 if point == "published" else 1)
    report(f"{attempts} attempts, {repeated_steps(run.attempts())} steps repeated")
