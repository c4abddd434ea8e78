"""`athanor up` as a process: one link, one installation a data directory, nothing lost, nothing left."""

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from app.core import processes
from app.core.processes import ManagedProcess
from app.corpora.shipped import SHIPPED
from app.launcher import up
from tests import stack
from tests.stack import ROOT, Stack
from tests.waiting import until


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def whole(home: Path) -> Iterator[Stack]:
    with stack.running(home) as running:
        yield running


def descendants(whole: Stack) -> list[psutil.Process]:
    return psutil.Process(whole.process.pid).children(recursive=True)


def process_named(whole: Stack, word: str) -> psutil.Process:
    return next(process for process in descendants(whole) if word in process.cmdline())


def test_it_prints_one_link_that_works(whole: Stack) -> None:
    assert whole.output.read_text().count("http://") == 1
    answer = httpx.get(whole.link)
    assert answer.status_code == 200
    assert set(httpx.get(whole.base_url + "/readyz").json().values()) == {"ok"}


def test_the_ballast_is_allocated_at_the_start(whole: Stack) -> None:
    ballast = whole.data / "ballast"
    until(lambda: ballast.exists() and ballast.stat().st_blocks * 512 >= 16 * 2**20, 30, "the ballast")


def test_a_second_instance_on_the_same_data_is_rejected_harmlessly(whole: Stack) -> None:
    environment = {**os.environ, "ATHANOR_DATA": str(whole.data), "ATHANOR_PORT": "0"}
    command = [sys.executable, "-m", "app.launcher.cli", "up"]
    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert str(whole.data) in second.stdout
    assert f"process {whole.process.pid}" in second.stdout
    assert httpx.get(whole.base_url + "/readyz").status_code == 200


def test_the_one_time_code_is_in_no_log(whole: Stack) -> None:
    code = whole.link.partition("code=")[2]
    for log in whole.data.glob("logs/*.log"):
        assert code not in log.read_text(errors="replace"), log


def test_a_crashed_process_restarts_at_the_same_address(whole: Stack) -> None:
    before = process_named(whole, "web")
    before.kill()
    # The socket stays open meanwhile, so clients wait instead of being refused.
    assert httpx.get(whole.base_url + "/livez", timeout=30).status_code == 200
    assert process_named(whole, "web").pid != before.pid
    assert "web ended (SIGKILL) and restarts in 1 s" in whole.output.read_text()


def test_the_web_process_stops_within_seconds_despite_open_streams(whole: Stack) -> None:
    whole.sign_up("Alice")
    text = SHIPPED[0].corpus_id
    until(lambda: whole.client.get(f"/api/v1/corpora/{text}").json().get("state") == "ready", 60, "the sample corpus")
    job = whole.client.post("/api/v1/jobs", json={"name": "watched", "corpora": [text]}).json()["id"]
    try:
        with whole.client.stream("GET", f"/api/v1/jobs/{job}/events") as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: job"
            before = process_named(whole, "web")
            before.terminate()
            assert before.wait(10) == 0 or not before.is_running()
            with suppress(httpx.RemoteProtocolError):  # cut off in the middle or not: the page comes back by itself
                deque(lines, maxlen=0)
    finally:
        assert whole.client.post(f"/api/v1/jobs/{job}/cancel").status_code == 202
    until(lambda: whole.client.get(f"/api/v1/jobs/{job}").json()["state"] == "cancelled", 60, "the cancelled job")


def test_crashed_embedded_servers_restart(whole: Stack) -> None:
    process = next(process for process in descendants(whole) if process.name() == "valkey-server")
    process.kill()
    until(lambda: httpx.get(whole.base_url + "/readyz").json()["broker"] == "ok", 30, "Valkey's return")
    until(lambda: "Valkey ended and restarts." in whole.output.read_text(), 30, "the word of it")


def test_a_start_after_a_hard_kill_takes_over_and_ctrl_c_stops_all(whole: Stack, home: Path) -> None:
    left_behind = descendants(whole)
    databases = [process for process in left_behind if process.name() == "postgres"]
    whole.process.kill()
    whole.process.wait()
    again = stack.start(home)
    try:
        assert "setup" not in again.link, "Alice is still known"
        assert all(process.is_running() for process in databases[:1])
        assert not any(process.is_running() and "web" in process.cmdline() for process in left_behind)
        client = httpx.Client(base_url=again.base_url, headers={"Authorization": f"Bearer {whole.token}"})
        assert client.get("/api/v1/me").json()["name"] == "Alice"
        everything = [*left_behind, *descendants(again)]
    finally:
        code = again.stop(60)
    assert code == 0
    assert again.output.read_text().rstrip().endswith("Stopped.")
    _gone, alive = psutil.wait_procs([process for process in everything if process.is_running()], 30)
    assert [process.cmdline() for process in alive] == []


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_the_next_free_port_is_used_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with up.listen("127.0.0.1", port) as listener:
            other = listener.getsockname()[1]
            assert other > port
    assert f"Port {port} is in use; using {other}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("::1", "[::1]"), ("::", "localhost"), ("panel", "panel")],
)
def test_the_link_can_be_opened_on_this_machine(host: str, shown: str) -> None:
    assert up.url_host(host) == shown


def test_a_crashing_process_restarts_with_increasing_delays(database: str, tmp_path: Path) -> None:
    child = ManagedProcess("hopeless", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "hopeless.log")
    child.start()
    pauses = []
    for _ in range(3):
        assert until(child.restart_if_dead, 10, "its end") == "exit code 3"
        pauses.append(child.pause)
        child._start_at = 0.0  # do not wait for it
        child.restart_if_dead()
    assert pauses == [1.0, 2.0, 4.0]
    until(lambda: not child.alive(), 10)


def test_only_important_lines_reach_the_terminal(database: str, tmp_path: Path) -> None:
    lines = "INFO fine\nWARNING look\nTraceback (most recent call last):\nValueError: no\nERROR half"
    child = ManagedProcess(
        "talker", [sys.executable, "-c", f"import sys; sys.stdout.write({lines!r})"], tmp_path / "t.log"
    )
    child.start()
    until(lambda: not child.alive(), 10)
    assert child.new_log_lines() == ["WARNING look", "Traceback (most recent call last):", "ValueError: no"]
    assert child.new_log_lines() == []


def test_the_log_of_a_running_process_is_rotated_and_few_lines_are_printed(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 10_000)
    code = "import sys\nfor line in sys.stdin: sys.stdout.write(line * 100); sys.stdout.flush()"
    log = tmp_path / "talker.log"
    with log.open("ab") as output:
        talker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=output, text=True)
    child = ManagedProcess("talker", [], log)
    assert talker.stdin is not None
    with talker, talker.stdin:
        for size in (1_000, 10):
            talker.stdin.write("WARNING " + "x" * size + "\n")
            talker.stdin.flush()
            num_bytes = 100 * (size + 9)
            until(lambda: log.stat().st_size == num_bytes, 20, "the output")  # noqa: B023 - called at once
            lines = child.new_log_lines()
            assert len(lines) == processes.MAX_LINES + 1
            assert max(map(len, lines[:-1])) <= processes.MAX_LINE_BYTES
    assert (tmp_path / "talker.log.1").stat().st_size == 100 * 1_009
    assert log.stat().st_size == 100 * 19, "the process continues in the emptied file"


def test_a_reused_pid_is_not_mistaken_for_the_process(tmp_path: Path) -> None:
    note = tmp_path / "a.pid"
    processes.write_pid(note, os.getpid())
    found = processes.from_pid_file(note)
    assert found is not None
    assert found.pid == os.getpid()
    note.write_text(f"{os.getpid()} 12345.0\n")
    assert processes.from_pid_file(note) is None
    note.write_text("nonsense")
    assert processes.from_pid_file(note) is None


def test_the_exit_of_a_process_is_described() -> None:
    assert processes.ending(3) == "exit code 3"
    assert processes.ending(-signal.SIGKILL) == "SIGKILL"
    assert processes.ending(-64) == "signal 64" or processes.ending(-64).startswith("SIG")
