"""The probe before the first step: what it finds, and that nothing of the training depends on it."""

import json
from pathlib import Path
from typing import Any

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import make_run, of_kind
from trainer.run_dir import RunDir


def test_a_run_is_measured_before_its_first_step(trained: RunDir) -> None:
    (found,) = of_kind(trained, "probe")
    first = next(event for event in of_kind(trained, "points") if event.step == 1)

    assert found.seq < first.seq
    assert found.is_whole
    assert found.gemm_flops > 1e8
    assert 0 < found.step_seconds < 60
    assert found.peak_bytes > 100 << 20
    assert found.save_seconds is not None
    assert not list(trained.attempt_path(1).glob("probe*"))


def test_a_run_reports_step_times_at_step_20_and_at_its_end(trained: RunDir) -> None:
    found = of_kind(trained, "usage")

    assert [event.step for event in found] == [20, 150]
    (probe,) = of_kind(trained, "probe")
    assert found[0].peak_bytes >= probe.peak_bytes
    assert 0 < found[1].step_seconds < 60


def test_benchmarking_does_not_gather_sharded_gradients(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "probed-2-2", max_steps=1, warmup_steps=0, num_processes=2, zero_stage=2)
    assert fork_server.run(run_dir, 2) == 0, run_dir.log_path.read_text()

    (found,) = of_kind(run_dir, "probe")
    assert not found.is_whole
    assert found.step_seconds > 0


def steps(fork_server: GangForkServer, *words: str) -> list[Any]:
    done = fork_server.command("tests.trainer.precisions", *words).result()
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_benchmarking_does_not_change_the_bits_of_steps(fork_server: GangForkServer) -> None:
    probed, plain = steps(fork_server, "probed"), steps(fork_server)

    assert len(probed) == 10
    assert probed == plain
