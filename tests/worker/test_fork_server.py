"""The fork server: forks for those who say what they want, and ends with its worker."""

import json
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from app.core.json_shapes import Telemetry
from tests.waiting import until
from trainer.processes.child_environment import child_environment
from worker.environment import fork_server_socket
from worker.inference.priority import LOADING_NICENESS, TEXT_NICENESS
from worker.node import ForkServer, describe
from worker.supervisor import gang_client as gangs


def connected(line: bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(fork_server_socket()))
    connection.sendall(line)
    return connection


@pytest.mark.parametrize("line", [b'{"serve": "shell"}\n', b"not json\n", b"{}\n", b"x" * 300])
def test_an_invalid_request_is_rejected(fork_server: ForkServer, line: bytes) -> None:
    with connected(line) as connection, suppress(ConnectionResetError):
        assert connection.recv(10) == b""


def test_a_gang_is_a_fork_in_a_session_of_its_own(fork_server: ForkServer) -> None:
    with connected(b'{"serve": "gang"}\n') as connection:
        hello = json.loads(connection.recv(1000))
        assert os.getsid(hello["pid"]) == hello["pid"]
        assert psutil.Process(hello["pid"]).ppid() == fork_server._process.pid  # type: ignore[union-attr]
    until(lambda: not psutil.pid_exists(hello["pid"]), 20, "the end of a gang nobody wants")


def test_an_inference_process_gives_way_to_trainings(fork_server: ForkServer) -> None:
    loading, texts = (min(19, os.nice(0) + niceness) for niceness in (LOADING_NICENESS, TEXT_NICENESS))
    with connected(b'{"serve": "inference"}\n'):
        until(lambda: psutil.Process(fork_server._process.pid).children(), 20, "the fork")  # type: ignore[union-attr]
        (child,) = psutil.Process(fork_server._process.pid).children()  # type: ignore[union-attr]
        until(lambda: child.nice() == loading, 20, "its niceness")
        assert os.getsid(child.pid) == child.pid
        if Path("/proc/self/autogroup").exists():  # the kernel has groups of sessions
            group = Path(f"/proc/{child.pid}/autogroup")
            until(lambda: group.read_text().endswith(f" nice {texts}\n"), 20, "that of its session")
    until(lambda: not child.is_running(), 20, "its end with the connection")


def test_a_killed_gang_is_reported_as_lost_and_exited(fork_server: ForkServer) -> None:
    gang = gangs.start()
    assert not gang.is_gone()
    os.kill(gang.pid, signal.SIGKILL)

    def is_lost() -> bool:
        gang.poll()
        return gang.is_lost and gang.is_gone()

    until(is_lost, 20, "the loss of the gang")
    assert gang.done is None
    gang.close()


def test_a_process_that_reuses_the_pid_is_not_killed(fork_server: ForkServer) -> None:
    gang = gangs.start()
    gang._started_at += 3600
    assert gang.is_gone()
    gang.kill()
    assert psutil.pid_exists(gang.pid)
    gang.close()


def test_the_environment_of_trainers_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHANOR_CANARY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "secret" not in child_environment("trainer").values()
    assert not set(child_environment("trainer")) & {"DATABASE_URL", "REDIS_URL", "ATHANOR_DATA"}


def test_a_crashed_fork_server_is_restarted(fork_server: ForkServer) -> None:
    first = fork_server._process
    assert first is not None
    fork_server._started_at = 0.0
    first.kill()
    first.wait()
    fork_server.watch()
    assert fork_server._process is not None
    assert fork_server._process.pid != first.pid
    until(fork_server_socket().exists, 120, "the socket of the second one")


def test_a_node_describes_its_hardware(database: str) -> None:
    described = describe()
    assert described["num_cpus"] >= 1
    telemetry = described["telemetry"]
    assert telemetry.model_fields_set == Telemetry.model_fields.keys()  # what pages and programs read is sent
    assert described["memory_bytes"] > telemetry.memory_used_bytes > 0
    assert telemetry.disk_bytes > telemetry.disk_free_bytes > 0
    assert telemetry.versions["deepspeed"]
    assert described["gpus"] == [] or described["gpus"][0]["uuid"].startswith("GPU-")
