"""Fixtures of the trainer's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import make_run
from trainer.run_dir import RunDir


@pytest.fixture(scope="session")
def fork_server() -> Iterator[GangForkServer]:
    """The fork server that all runs of a session share."""
    server = GangForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for runs that share a cache."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def trained(fork_server: GangForkServer, home: Path) -> RunDir:
    """A finished run: 150 steps, evaluated every 50, saved at 100 and 150."""
    run_dir = make_run(home, "trained", max_steps=150, eval_steps=50, save_steps=100, learning_rate=0.01)
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()
    return run_dir
