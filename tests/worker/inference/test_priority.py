"""The priority of an inference process: a model is loaded before texts give way to trainings."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.waiting import until
from tests.worker.inference.test_server import REQUEST, write_model
from trainer.data import tokenizer
from trainer.data.server_process import IsStopped
from trainer.formats import jsonlines
from worker.inference.models import Models
from worker.inference.priority import LOADING_NICENESS, TEXT_NICENESS, Priority
from worker.inference.shared_tokenizer import SharedTokenizer

LOADING, TEXTS = (min(19, os.nice(0) + niceness) for niceness in (LOADING_NICENESS, TEXT_NICENESS))


def session_niceness(process: psutil.Process) -> int | None:
    """That of its session; None where the kernel has no groups of sessions."""
    group = Path(f"/proc/{process.pid}/autogroup")
    return int(group.read_text().split()[-1]) if group.exists() else None


def thread_niceness(process: psutil.Process) -> set[int]:
    stats = [(path / "stat").read_text() for path in Path(f"/proc/{process.pid}/task").iterdir()]
    return {int(stat.rpartition(")")[2].split()[16]) for stat in stats}


def test_texts_have_a_low_priority_once_their_model_is_loaded(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "model", tokenizer.untrained())
    leash, theirs = socket.socketpair()
    connection, peer = socket.socketpair()
    connection.settimeout(60)
    command = [sys.executable, "-m", "worker.inference.server", "--fd", str(theirs.fileno())]
    with psutil.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL) as process, leash, connection:
        theirs.close()
        socket.send_fds(leash, [b"+"], [peer.fileno()])
        peer.close()
        jsonlines.send(connection, {**REQUEST, "path": str(directory), "max_tokens": 200, "stream": True})
        messages = iter(lambda: jsonlines.receive(connection), None)
        assert any(message["event"] == "piece" for message in messages)
        (reader,) = process.children()
        assert reader.nice() == TEXTS
        assert thread_niceness(process) >= {LOADING, TEXTS}
        until(lambda: session_niceness(process) in (TEXTS, None), 20, "the priority of the session")


def test_the_session_has_a_higher_priority_while_a_model_is_loaded() -> None:
    program = (
        "import os; from pathlib import Path; from worker.inference.priority import Priority\n"
        "group = Path('/proc/self/autogroup')\n"
        "def show(): print(os.nice(0), group.read_text().split()[-1] if group.exists() else '-')\n"
        "priority = Priority(); show()\n"
        "with priority.loading():\n"
        "    with priority.loading(): pass\n"
        "    priority.set_session(); show()\n"
        "priority.set_session(); show(); priority.lower(); show()\n"
    )
    command = [sys.executable, "-c", program]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split("\n")[:4]
    own = [int(line.split()[0]) for line in lines]
    assert own == [LOADING, LOADING, LOADING, TEXTS]
    sessions = [line.split()[1] for line in lines]
    assert sessions in ([str(TEXTS), str(LOADING), str(TEXTS), str(TEXTS)], ["-"] * 4)


class RecordedPriority(Priority):
    """Changes nothing, and records what is asked of it."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    @contextmanager
    def loading(self) -> Iterator[None]:
        self._events.append("begin")
        yield
        self._events.append("end")

    def lower(self, process_id: int = 0) -> None:
        self._events.append("lower the tokenizer" if process_id else "lower the thread")


def test_a_model_is_loaded_with_its_tokenizer_before_the_priority_is_lowered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = write_model(tmp_path / "model", tokenizer.untrained())
    events: list[str] = []
    models = Models("cpu", RecordedPriority(events))
    wait_until_ready = SharedTokenizer.wait_until_ready

    def wait(own: SharedTokenizer, is_stopped: IsStopped) -> None:
        wait_until_ready(own, is_stopped)
        events.append("ready")

    monkeypatch.setattr(SharedTokenizer, "wait_until_ready", wait)
    lower = ["lower the thread", "lower the tokenizer"]
    try:
        with models.acquire(directory, lambda: False):
            assert events == ["begin", "ready", "end", *lower]
        events.clear()
        with models.acquire(directory, lambda: False):
            assert events == lower
    finally:
        for model in models._models.values():
            model.close()
        models._reservation.close()
