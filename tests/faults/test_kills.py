"""F1 to F36: SIGKILL for every part in every state, and the job ends with the weights of an undisturbed run."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.runs import SAVE_STEPS, STEPS, Run, repeated_steps
from tests.faults.stack import SERVERS, Stack
from tests.waiting import until

ROLES = ("trainer", "supervisor", "worker", "web", "valkey", "postgres")
STATES = ("queued", "starting", "running", "saving", "pausing", "cancelling")
CORE = (("trainer", "running"), ("supervisor", "running"), ("worker", "running"), ("postgres", "running"))
Submit = Callable[..., Run]


def rows() -> list[Any]:
    """F1 to F36."""
    made = []
    for number, (role, state) in enumerate(((role, state) for role in ROLES for state in STATES), start=1):
        marks = [pytest.mark.row(f"F{number}", f"kill -9 {role} while {state}")]
        if (role, state) in CORE:
            marks.append(pytest.mark.faults_core)
        made.append(pytest.param(role, state, marks=marks, id=f"{role}-{state}"))
    return made


def bring_to(run: Run, state: str) -> None:
    """Bring a job to a state and keep it there as far as that can be done from outside."""
    if state == "queued":
        until(lambda: run.state() == "queued", what="a queued job")
    elif state == "starting":
        until(run.supervisor, 30, "a supervisor")  # before it has one, nobody but the scheduler could help it
        run.trainer()
    else:
        run.until_step(SAVE_STEPS + 7)
        if state == "saving":
            until(run.saving, what="a checkpoint being written")
        elif state in ("pausing", "cancelling"):
            run.signal_ranks(signal.SIGSTOP)  # so that it cannot get there before the fault
            assert run.post({"pausing": "pause", "cancelling": "cancel"}[state]).status_code == 202
            run.until(state)


@pytest.mark.parametrize(("role", "state"), rows())
def test_a_killed_part_costs_at_most_the_steps_since_the_last_checkpoint(
    installation: Stack, submit: Submit, golden: Callable[[int], str], saw: Callable[[str], None], role: str, state: str
) -> None:
    expected = golden(1)
    if state == "queued":
        installation.hold("scheduler")  # nobody places it
    run = submit()
    bring_to(run, state)
    trained = [process.pid for process in run.ranks()]
    run.kill9(role)
    if state in ("pausing", "cancelling"):
        run.signal_ranks(signal.SIGCONT)
    if role == "postgres" and state in ("running", "saving"):
        goes_on(run)
    if role in installation.programs or role in SERVERS:
        installation.restart(role)
    if state == "queued":
        installation.until_warm()
        installation.go_on("scheduler")
    follow(run, state)
    attempts = run.attempts()
    if role not in ("trainer", "supervisor") and state in ("starting", "running", "saving"):
        assert len(attempts) == 1, run.reasons()
        assert repeated_steps(attempts) == 0
    invariants.check(run, expected if state != "cancelling" else None)
    saw(f"{len(attempts)} attempts, {repeated_steps(attempts)} steps repeated, {run.state()}; trainer {trained}")


def goes_on(run: Run) -> None:
    """The trainer does not stop for a database that is away."""
    run.until_step(min(run.last_step() + 5, STEPS))


def follow(run: Run, state: str) -> None:
    """See the job to where it was going; one that paused is resumed, and ends as if nothing had been."""
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
        pytest.param("published", 2, marks=pytest.mark.row("F10-2", "supervisor killed between place and row")),
        pytest.param("recorded", 2, marks=pytest.mark.row("F10-3", "supervisor killed behind a checkpoint's row")),
        pytest.param("concluding", 2, marks=pytest.mark.row("F10-4", "supervisor killed before its last word")),
    ],
)
def test_a_part_killed_where_nobody_could_hit_it_costs_one_more_attempt(
    installation: Stack,
    submit: Submit,
    golden: Callable[[int], str],
    saw: Callable[[str], None],
    point: str,
    attempts: int,
) -> None:
    expected = golden(1)
    installation.arm(point)
    run = submit()
    until(lambda: installation.reached(point), 60, f"a death at {point}")
    if point == "claimed":
        installation.kill9("worker")  # it is dying by its own hand
        installation.restart("worker")
        installation.until_warm()
    run.end()
    assert len(run.attempts()) == attempts
    # So small a model may save once more before its supervisor publishes the first.
    invariants.check(run, expected, intervals=2 if point == "published" else 1)
    saw(f"{attempts} attempts, {repeated_steps(run.attempts())} steps repeated")
