"""The gang: its protocol, and that no process is left after any of them is killed."""

import fcntl
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.trainer.gangs import GangConnection, GangForkServer
from tests.trainer.runs import checkpoint_of, make_run, of_kind, series
from tests.waiting import until
from trainer.launch import gang
from trainer.run_dir import RunDir, verify

ENDLESS = {"max_steps": 1_000_000}


@pytest.fixture
def supervisor(fork_server: GangForkServer) -> Iterator[GangConnection]:
    started = fork_server.start()
    yield started
    started.close()
    until(lambda: not alive(started.process), what="the end of the gang")


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def train_until_step(
    supervisor: GangConnection, run_dir: RunDir, step: int, num_processes: int
) -> list[psutil.Process]:
    """Start a run, wait for a step, and return its ranks in order."""
    supervisor.ask(run_dir, num_processes)
    until(lambda: step in series(run_dir, "loss"), 60, f"step {step}")
    return sorted(supervisor.process.children(), key=lambda child: child.pid)


def test_the_exit_of_each_rank_and_of_the_attempt_is_reported(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "reported", num_processes=2)
    supervisor = fork_server.start().ask(run_dir, 2)
    *ranks, end = supervisor.rest()
    supervisor.close()

    assert sorted(message["rank"] for message in ranks) == [0, 1]
    assert {message["exit"] for message in ranks} == {0}
    assert end == {"done": 0}


def test_the_gang_leads_its_own_session(supervisor: GangConnection) -> None:
    assert supervisor.process.pid != psutil.Process().pid
    with Path(f"/proc/{supervisor.process.pid}/stat").open() as file:
        session = int(file.read().rsplit(")", 1)[1].split()[3])
    assert session == supervisor.process.pid


def test_the_environment_reaches_the_ranks(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "threads", max_steps=5)

    assert fork_server.run(run_dir, 1, OMP_NUM_THREADS="1") == 0
    assert verify(checkpoint_of(run_dir, 5))["num_threads"] == 1


@pytest.mark.parametrize("num_processes", [1, 2])
def test_sigterm_finishes_the_step_writes_a_checkpoint_and_exits_with_75(
    supervisor: GangConnection, home: Path, num_processes: int
) -> None:
    run_dir = make_run(home, f"stopped-{num_processes}", **ENDLESS, num_processes=num_processes)
    train_until_step(supervisor, run_dir, 3, num_processes)

    supervisor.send(signal="TERM")
    supervisor.send(signal="TERM")  # asking twice does no harm

    assert supervisor.done() == 75
    (saved,) = of_kind(run_dir, "checkpoint")
    assert saved.step == max(series(run_dir, "loss"))
    assert verify(checkpoint_of(run_dir, saved.step))["step"] == saved.step
    assert not of_kind(run_dir, "failure")
    assert not of_kind(run_dir, "finished")


def test_sigterm_sent_together_with_the_request_stops_the_run(supervisor: GangConnection, home: Path) -> None:
    run_dir = make_run(home, "called-off", **ENDLESS)
    supervisor.ask(run_dir)
    supervisor.send(signal="TERM")

    assert supervisor.done() == 75
    assert not series(run_dir, "loss")


def test_kill_ends_the_run_at_once(supervisor: GangConnection, home: Path) -> None:
    run_dir = make_run(home, "killed", **ENDLESS)
    ranks = train_until_step(supervisor, run_dir, 1, 1)

    supervisor.send(signal="KILL")

    assert supervisor.rest() == [{"rank": 0, "exit": -9}, {"done": -9}]
    assert not any(alive(rank) for rank in ranks)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others_and_determines_the_exit_code(
    supervisor: GangConnection, home: Path, victim: int
) -> None:
    run_dir = make_run(home, f"dead-rank-{victim}", **ENDLESS, num_processes=2)
    ranks = train_until_step(supervisor, run_dir, 2, 2)

    ranks[victim].kill()

    messages = supervisor.rest()
    assert {"rank": victim, "exit": -9} in messages
    assert messages[-1] == {"done": -9}
    assert not any(alive(rank) for rank in ranks)
    assert not of_kind(run_dir, "failure")


def test_the_supervisors_death_stops_the_ranks_with_a_checkpoint(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "orphan", **ENDLESS)
    supervisor = fork_server.start()
    ranks = train_until_step(supervisor, run_dir, 2, 1)

    supervisor.close()

    until(lambda: not alive(supervisor.process), what="the end of the gang")
    assert not any(alive(rank) for rank in ranks)
    assert verify(checkpoint_of(run_dir, max(series(run_dir, "loss"))))


def test_the_gangs_death_stops_the_ranks(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "no-gang", **ENDLESS, num_processes=2)
    supervisor = fork_server.start()
    ranks = train_until_step(supervisor, run_dir, 2, 2)

    supervisor.process.kill()

    until(lambda: not any(alive(rank) for rank in ranks), what="the end of the ranks")
    supervisor.close()


def test_a_rank_that_ignores_sigterm_is_killed(fork_server: GangForkServer, home: Path) -> None:
    assert gang.PEER_GRACE_SECONDS <= 10
    run_dir = make_run(home, "stopped-peer", **ENDLESS, num_processes=2)
    supervisor = fork_server.start(peer_grace_seconds=1.0)
    ranks = train_until_step(supervisor, run_dir, 2, 2)

    ranks[1].suspend()
    ranks[0].kill()

    assert supervisor.done() == -9
    supervisor.close()
    assert not any(alive(rank) for rank in ranks)


def test_disconnecting_before_the_request_ends_the_gang(fork_server: GangForkServer) -> None:
    supervisor = fork_server.start()
    supervisor.close()

    until(lambda: not alive(supervisor.process), what="the end of the gang")


def test_the_command_line_starts_a_gang_on_an_inherited_socket(home: Path) -> None:
    run_dir = make_run(home, "cold", max_steps=5)
    ours, theirs = socket.socketpair()
    argv = [sys.executable, "-m", "trainer", "gang", "--fd", str(theirs.fileno())]
    with subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        supervisor = GangConnection(ours).ask(run_dir)
        assert supervisor.done() == 0
        supervisor.close()

    assert process.returncode == 0
    assert list(series(run_dir, "loss")) == [1, 2, 3, 4, 5]


def test_a_gpu_stays_locked_until_the_last_process_exits(
    fork_server: GangForkServer, home: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "gpu.lock"
    first = fork_server.start()
    run_dir = make_run(home, "holds-a-gpu", max_steps=100_000)
    first.send(run_dir=str(run_dir.path), fence=1, num_processes=1, device="cpu", env={}, locks=[str(lock)])
    until(lambda: series(run_dir, "loss"), 60, "the first step")
    rank = first.process.children()[0]

    assert not is_free(lock)
    rank.suspend()  # a process that hangs still uses the GPU
    first.process.kill()
    first.close()
    assert not is_free(lock)
    rank.kill()
    until(lambda: is_free(lock), 10, "the lock")


def is_free(lock: Path) -> bool:
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_locking_a_gpu_in_use_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "LOCK_SECONDS", 0.0)
    lock = tmp_path / "gpu.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not gang.lock_files([str(lock)])
    assert gang.lock_files([str(lock)])
