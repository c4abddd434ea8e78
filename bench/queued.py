"""The list of jobs with 500 queued ones, and a round of placing them, against plain SELECTs of the same rows.

`PYTHONPATH=. python bench/queued.py [REQUESTS | --smoke]`. Starts servers of its own and a real web process; each
figure and its yardstick come from the same run.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from tests import environment, servers, users  # noqa: F401 - environment first: it is read when ours is imported

# isort: split
from app.core import db
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.waiting import until

ROOT = Path(__file__).parents[1]
QUEUED = 500
GOAL_SECONDS = 0.3


def p95_seconds(work: Callable[[], Any], times: int) -> float:
    """The time that 95 of 100 calls keep to."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.quantiles(taken, n=100)[94]


def rows(limit: int) -> None:
    """What a page of that many jobs cannot do without."""
    with db.engine().connect() as connection:
        jobs = connection.execute(text("SELECT * FROM job ORDER BY id DESC LIMIT :limit"), {"limit": limit}).all()
        assert len(jobs) == min(limit, QUEUED)


def place() -> None:
    """One round of the scheduler over the whole queue."""
    with db.transaction() as session:
        dispatch.place(session)


def get(client: httpx.Client, path: str) -> None:
    """One request."""
    client.get(path).raise_for_status()


def main(requests: int) -> None:
    """Fill the queue, measure, print."""
    with (
        servers.running() as both,
        tempfile.TemporaryDirectory(prefix="athanor-bench-") as data,
        servers.fresh_database(both, Path(data)),
        closing(socket.socket()) as listener,
    ):
        alice = users.enter("Alice", "owner")
        corpus = factories.corpus(alice)
        factories.node()
        for number in range(QUEUED):
            factories.submitted(alice, corpus, name=f"job {number}")
        begin = time.perf_counter()
        place()
        first = time.perf_counter() - begin
        steady = p95_seconds(place, 20)
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        fd = listener.fileno()
        command = [sys.executable, "-m", "app.launcher.cli", "web", "--fd", str(fd)]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, pass_fds=[fd], stderr=subprocess.DEVNULL)
        try:
            headers = {"Authorization": f"Bearer {alice.token()}"}
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                until(lambda: client.get("/readyz").is_success, 60, "the web process")
                for what, path, limit in (
                    ("page of 25", "/jobs?show=active", 25),
                    ("API, 50", "/api/v1/jobs", 50),
                    ("API, 200", "/api/v1/jobs?limit=200", 200),
                ):
                    get(client, path)
                    took = p95_seconds(lambda path=path: get(client, path), requests)
                    plain = p95_seconds(lambda limit=limit: rows(limit), requests)
                    goal = "" if took <= GOAL_SECONDS else "  MISSED"
                    print(
                        f"{what:<11} p95 {took * 1000:6.1f} ms (goal: {GOAL_SECONDS * 1000:.0f})  "
                        f"plain SELECT {plain * 1000:5.1f} ms  ratio {took / plain:5.1f}{goal}"
                    )
        finally:
            process.terminate()
            process.wait(30)
        plain = p95_seconds(lambda: rows(QUEUED), 20)
    print(f"placing {QUEUED}: first {first * 1000:.0f} ms, then p95 {steady * 1000:.0f} ms a round")
    print(f"plain SELECT of all {QUEUED}: p95 {plain * 1000:.1f} ms, ratio {steady / plain:.1f}")


if __name__ == "__main__":
    if "--smoke" in sys.argv:
        QUEUED = 10
        main(2)
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
