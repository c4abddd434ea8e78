"""What the ranks of a run open to the network, and what they send each other."""

from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import make_run, series
from tests.waiting import until
from trainer.engines import process_group
from trainer.failure import Failure
from trainer.run_dir import RunDir


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_run_listens_on_loopback_only(fork_server: GangForkServer, home: Path, num_processes: int) -> None:
    run_dir: RunDir = make_run(home, f"listens-{num_processes}", max_steps=1_000_000, num_processes=num_processes)
    supervisor = fork_server.start().ask(run_dir, num_processes)
    until(lambda: series(run_dir, "loss"), 60, "a step")
    processes = [supervisor.process, *supervisor.process.children()]
    addresses = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    ]
    supervisor.send(signal="KILL")
    supervisor.done()
    supervisor.close()

    assert len(processes) == 1 + num_processes
    assert set(addresses) == {"127.0.0.1"}


def test_one_process_has_a_store_that_listens_nowhere() -> None:
    assert isinstance(process_group._store(0, 1), HashStore)


@pytest.mark.parametrize(("kind", "variable"), process_group.INTERFACES.items())
def test_several_machines_need_a_named_interface(kind: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(variable, raising=False)

    with pytest.raises(Failure, match=f"set {variable} to the network interface"):
        process_group.join(torch.device(kind))
