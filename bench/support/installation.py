"""The installation that benchmarks of jobs and uploads use: one of their own, or the one that BENCH_INSTALLATION names.

BENCH_INSTALLATION is a JSON list: address, API token of its owner, data directory on this machine.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from tests import stack
from tests.trainer.runs import NETWORK
from tests.waiting import until

CORPUS = "00kingjamesbible"
SMALL = {  # fields of a spec for smoke tests
    **NETWORK,
    "train_batch_size": 4,
    "per_device_batch_size": 2,
}
TIMEOUT_SECONDS = 600


@contextmanager
def running() -> Iterator[tuple[httpx.Client, Path]]:
    """A client with the owner's API token, and the data directory."""
    if "BENCH_INSTALLATION" in os.environ:
        address, token, data = json.loads(os.environ["BENCH_INSTALLATION"])
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address, headers=headers, timeout=TIMEOUT_SECONDS) as client:
            yield client, Path(data)
        return
    with tempfile.TemporaryDirectory(prefix="athanor-bench-") as home, stack.running(Path(home)) as installation:
        installation.sign_up("Alice")
        installation.client.timeout = httpx.Timeout(TIMEOUT_SECONDS)
        yield installation.client, installation.data


def wait_until_ready(client: httpx.Client, data: Path) -> None:
    """Wait until the shipped corpus is parsed and the fork server has finished its imports."""
    log = data / "logs/fork_server.log"

    def is_ready() -> bool:
        corpus = client.get(f"/api/v1/corpora/{CORPUS}").json()
        return (
            corpus["state"] == "ready" and log.exists() and "INFO fork_server: ready" in log.read_text(errors="replace")
        )

    until(is_ready, 120, "the corpus and the fork server")


def processes_of(data: Path) -> list[psutil.Process]:
    """All processes of the installation with this data directory, and their children."""
    roots = [one for one in psutil.process_iter() if environment(one).get("ATHANOR_DATA") == str(data)]
    return list({*roots, *(child for one in roots for child in one.children(recursive=True))})


def environment(process: psutil.Process) -> dict[str, str]:
    """The environment of a process, empty where it cannot be read."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of processes."""
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def processes_of_job(job_id: str) -> list[psutil.Process]:
    """The processes that have a file of the job's run directory open: supervisor, gang and ranks."""
    processes = []
    for process in psutil.process_iter():
        try:
            links = [Path(f"/proc/{process.pid}/fd/{n}").readlink() for n in (1, 2)]
        except OSError:
            continue
        if any(job_id in str(link) for link in links):
            processes.append(process)
    return processes


def trainers_of(job_id: str) -> list[psutil.Process]:
    """Those of them that train."""
    return [process for process in processes_of_job(job_id) if "worker.supervisor" not in process.cmdline()]
