"""F67 to F69: a flooded log, migrations and restored backups while jobs train."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from app.launcher import embedded
from tests import environment
from tests.faults import invariants
from tests.faults.runs import Golden, Run, Submit
from tests.faults.stack import PROGRAMS, Installation, children_of
from tests.row_table import Report
from tests.waiting import until

FLOOD = b"x" * 2**20 + b"\xff\x00\x1b[31m"  # no newline, not UTF-8


@pytest.mark.row("F67", "100 MB without a newline in the log while it trains")
def test_a_flooded_log_is_read_in_small_chunks(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    run = submit()
    run.until_step(10)
    with run.dir.log_path.open("ab") as log:
        for _ in range(100):
            log.write(FLOOD)
    slowest = 0.0
    for offset in (0, 50 * 2**20):
        begin = time.monotonic()
        chunk = installation.get(f"/api/v1/jobs/{run.id}/log", params={"offset": offset})
        assert len(chunk.content) < 8 * 2**20
        slowest = max(slowest, time.monotonic() - begin)
    run.end()
    invariants.check(run, expected)
    run.dir.log_path.write_bytes(b"")
    report(f"each chunk below 8 MB, within {slowest * 1000:.0f} ms")


@pytest.mark.row("F68", "stop with a running job, downgrade, upgrade, start")
def test_a_running_job_survives_a_migration_and_its_reversal(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    run = submit()
    run.until_step(27)
    for role in PROGRAMS:
        installation.stop_role(role)
    for process in children_of(installation.home):
        process.send_signal(signal.SIGTERM)
    until(lambda: not children_of(installation.home), 30, "the end of the supervisor")
    migrate = "from app.core import migrations; migrations.{}"
    installation.run("-c", migrate.format("downgrade('0001')"))
    installation.run("-c", migrate.format("upgrade()"))
    for role in PROGRAMS:
        installation.restart(role)
    run.end()
    invariants.one_point_a_step(run)
    invariants.checkpoints_are_complete(run)
    assert run.weights() == expected
    report(f"{len(run.attempts())} attempts, the same weights")


@pytest.mark.row("F69", "a backup taken while it trains, restored elsewhere")
def test_a_backup_taken_during_training_resumes_elsewhere(
    installation: Installation, submit: Submit, golden: Golden, report: Report
) -> None:
    expected = golden()
    run = submit()
    run.until_step(50)
    home = environment.HOME / "elsewhere"
    other = Installation(home)
    dump = home / "dump.sql"
    programs = embedded._PROGRAMS
    subprocess.run([programs / "pg_dump", "-d", installation.postgres.url(), "-f", dump], check=True)
    copy(installation.data, other.data)
    run.end()
    try:
        other.start_servers()
        load = [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", other.postgres.url(), "-f", dump]
        subprocess.run(load, check=True, capture_output=True)
        other.start_programs()
        other.token = installation.token
        other.client.headers = installation.client.headers
        restored_run = Run.of_job(other, run.job())
        restored_run.end()
        invariants.one_point_a_step(restored_run)
        invariants.checkpoints_are_complete(restored_run)
        assert restored_run.weights() == expected
        report(f"the copy: {len(restored_run.attempts())} attempts, the same weights")
    finally:
        other.stop()
        shutil.rmtree(home, ignore_errors=True)
    invariants.check(run, expected)


def copy(source: Path, target: Path) -> None:
    """Copy a data directory that is being written to, up to five times: files that vanish are not needed."""
    ignore = shutil.ignore_patterns("postgres", "valkey", "logs", "lock")
    for attempt in range(5):
        try:
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore)
            return
        except shutil.Error:
            assert attempt < 4
