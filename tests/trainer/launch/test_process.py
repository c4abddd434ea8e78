"""How runs fail: the exit code and the reported failure."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import checkpoint_of, journal, make_run, of_kind
from trainer.events import EXIT_BUG, EXIT_PEER_LOST, Journal
from trainer.failure import EXIT_CODES, MESSAGES
from trainer.launch.process import run_and_report
from trainer.report import Reporter
from trainer.run_dir import RunDir

BAD_INPUTS: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
    "data_empty": (["", ""], {}, {}),
    "data_short": (["God said"], {"vocab_size": None}, {"needed": 65}),
}


@pytest.mark.parametrize("code", BAD_INPUTS)
def test_bad_input_exits_with_64_and_its_failure_code(fork_server: GangForkServer, home: Path, code: str) -> None:
    documents, fields, values = BAD_INPUTS[code]
    run_dir = make_run(home, code, documents, **fields)

    assert fork_server.run(run_dir) == 64

    (failure,) = of_kind(run_dir, "failure")
    assert failure.code == code
    assert values.items() <= failure.values.items()
    assert MESSAGES[code].format(**failure.values) in run_dir.log_path.read_text()
    assert "Traceback" not in run_dir.log_path.read_text()


def test_an_unreadable_tokenizer_exits_with_64(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "no-tokenizer", tokenizer_path=str(home))

    assert fork_server.run(run_dir) == 64
    assert of_kind(run_dir, "failure")[0].code == "tokenizer_mismatch"


def test_an_invalid_stored_spec_exits_with_64_and_names_the_field(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "tampered")
    run_dir.spec_path.write_text(run_dir.spec_path.read_text().replace('"max_steps": 20', '"max_steps": -20'))

    assert fork_server.run(run_dir) == 64

    (failure,) = of_kind(run_dir, "failure")
    assert (failure.code, failure.values["field"]) == ("config_invalid", "max_steps")


def test_a_wrong_number_of_processes_exits_with_64(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "too-few", num_processes=2)

    assert fork_server.run(run_dir, 1) == 64
    assert of_kind(run_dir, "failure")[0].values["field"] == "num_processes"


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_non_finite_loss_exits_with_70_and_leaves_no_checkpoint(
    fork_server: GangForkServer, home: Path, num_processes: int
) -> None:
    fields = {"learning_rate": 10.0, "max_grad_norm": 0.0, "warmup_steps": 0, "weight_decay": 1.0, "max_steps": 5_000}
    run_dir = make_run(home, f"diverging-{num_processes}", num_processes=num_processes, **fields, adam_beta2=0.0)

    assert fork_server.run(run_dir, num_processes) == 70

    (failure,) = of_kind(run_dir, "failure")
    assert failure.code == "nan_loss"
    assert failure.values["step"] > 0
    assert not checkpoint_of(run_dir, failure.values["step"]).exists()


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (MemoryError(), "oom_host", 71),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "oom_host", 71),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "oom_gpu", 71),
        (KeyError("surprise"), "trainer_bug", EXIT_BUG),
    ],
)
def test_an_exception_becomes_an_exit_code_and_an_event(
    tmp_path: Path, error: Exception, code: str, exit_code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    run_dir = RunDir(tmp_path)
    run_dir.attempt_path(1).mkdir(parents=True)
    report = Reporter(Journal(run_dir.events_path(1)))
    report.phase("train", 6, 10)

    assert run_and_report(report, work) == exit_code

    last: Any = journal(run_dir)[-1]
    assert (last.kind, last.code) == ("failure", code)
    assert "surprise" not in str(last.values)  # the message of an unexpected error is only in the log
    assert "Traceback" in capfd.readouterr().err
    if code.startswith("oom"):
        assert last.values["step"] == 7


def test_a_lost_peer_is_not_reported_as_a_failure_of_this_process(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.attempt_path(1).mkdir(parents=True)

    def work() -> int:
        raise RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc] Connection closed by peer")

    assert run_and_report(Reporter(Journal(run_dir.events_path(1))), work) == EXIT_PEER_LOST
    assert not journal(run_dir)


def test_every_failure_has_a_message() -> None:
    assert MESSAGES.keys() == EXIT_CODES.keys()
