"""F37, F43, F44: an attempt that is cut off or suspended loses its job at most once and writes nothing afterwards."""

import signal

import pytest

from tests.faults import invariants
from tests.faults.runs import LONG, Golden, Run, Submit, repeated_steps
from tests.faults.stack import Installation
from tests.row_table import Report
from tests.waiting import until


def points_of(run: Run, fence: int) -> int:
    """The number of metric points that an attempt has written."""
    query = "SELECT count(*) AS number FROM metric_point WHERE job_id = %s AND fence = %s"
    return int(run.stack.rows(query, run.id, fence)[0]["number"])


@pytest.mark.row("F37", "SIGSTOP supervisor and trainer past the lease, SIGCONT when another attempt runs")
@pytest.mark.faults_core
def test_an_attempt_suspended_past_its_lease_writes_nothing(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden(max_steps=LONG)
    run = submit(max_steps=LONG)
    run.until_step(50)
    supervisor = run.supervisor()
    assert supervisor is not None
    processes = [supervisor, *run.gang()]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    until(lambda: run.fence() == 2 and run.last_step() > 0, 60, "steps of another attempt")
    before = points_of(run, 1)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    until(lambda: not any(process.is_running() for process in processes[1:]), 15, "the end of the old trainer")
    until(lambda: not supervisor.is_running() or supervisor.status() == "zombie", 15, "the end of the old supervisor")
    run.end()
    assert points_of(run, 1) == before
    assert len(run.attempts()) >= 2  # on a busy machine the short lease of these tests may cost another one
    assert "lease lost: another attempt has the job" in run.logs()
    invariants.check(run, expected, intervals=2)  # steps also pass while a checkpoint is being saved
    report(f"0 rows after waking; {len(run.attempts())} attempts, {repeated_steps(run.attempts())} steps repeated")


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        pytest.param(150, 2, marks=pytest.mark.row("F43-1", "PostgreSQL stopped for less than a lease")),
        pytest.param(450, 12, marks=pytest.mark.row("F43-2", "PostgreSQL stopped for longer than a lease")),
    ],
)
def test_training_continues_without_a_database_and_loses_no_point(
    installation: Installation, submit: Submit, golden: Golden, report: Report, steps: int, seconds: int
) -> None:
    expected = golden(max_steps=LONG)
    run = submit(max_steps=LONG)
    run.until_step(30)
    trainer_pids = [process.pid for process in run.ranks()]
    installation.postgres.stop()
    answer = installation.get("/api/v1/jobs")
    assert (answer.status_code, bool(answer.headers["Retry-After"])) == (503, True)
    run.until_step(30 + steps)
    assert [process.pid for process in run.ranks()] == trainer_pids
    installation.restart("postgres")
    run.end()
    assert len(run.attempts()) == 1, run.reasons()
    invariants.check(run, expected)
    report(f"503 with Retry-After; the same trainer, {steps} steps meanwhile, 1 attempt")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("silent", marks=pytest.mark.row("F44-1", "the cable between worker and database pulled")),
        pytest.param("reset", marks=pytest.mark.row("F44-2", "connections from worker to database refused")),
    ],
)
def test_a_partitioned_worker_loses_its_job_and_stops_its_trainer_after_the_partition(
    installation: Installation, submit: Submit, golden: Golden, report: Report, how: str
) -> None:
    expected = golden(max_steps=LONG)
    installation.add("grace", "worker", node="grace").start()
    until(lambda: any(row["name"] == "grace" for row in installation.rows("SELECT name FROM node")), 60, "another node")
    installation.suspend("grace")
    run = submit(max_steps=LONG)
    run.until_step(30)
    installation.resume("grace")
    old = run.gang()
    installation.proxy.cut(how)  # type: ignore[arg-type]
    until(lambda: run.fence() == 2 and run.last_step() > 0, 90, "steps on the other node")
    installation.proxy.heal()
    until(lambda: not any(process.is_running() for process in old), 20, "the end of the old trainer")
    run.end()
    attempts = run.attempts()
    assert [attempt["node"] for attempt in attempts] == ["ada", "grace"]
    assert attempts[0]["exit_kind"] == "node_lost"
    invariants.check(run, expected)
    report(f"the second attempt on another node, {repeated_steps(attempts)} steps repeated; the old trainer is gone")
