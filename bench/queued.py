"""The list of jobs with 500 queued ones, and a round of placing them, against plain SELECTs of the same rows.

`PYTHONPATH=. python bench/queued.py [REQUESTS | --smoke]`. Starts servers of its own and a real web process; each
figure and its yardstick come from the same run.
"""

import httpx
from sqlalchemy import text

from bench.support import timing, web_process
from bench.support.arguments import IS_SMOKE, size
from tests import users

# isort: split
from app.core import db
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories

QUEUED = 10 if IS_SMOKE else 500
GOAL_MILLISECONDS = 300


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
    with web_process.empty_database():
        alice = users.enter("Alice", "owner")
        corpus = factories.corpus(alice)
        factories.node()
        for number in range(QUEUED):
            factories.submitted(alice, corpus, name=f"job {number}")
        (first,) = timing.seconds(place, 1)
        steady = timing.p95(timing.seconds(place, 20))
        with web_process.running(alice) as (client, _process):
            for what, path, limit in (
                ("page of 25", "/jobs?show=active", 25),
                ("API, 50", "/api/v1/jobs", 50),
                ("API, 200", "/api/v1/jobs?limit=200", 200),
            ):
                get(client, path)
                took = 1000 * timing.p95(timing.seconds(lambda path=path: get(client, path), requests))
                plain = 1000 * timing.p95(timing.seconds(lambda limit=limit: rows(limit), requests))
                print(
                    f"{what:<11} p95 {took:6.1f} ms  plain SELECT {plain:5.1f} ms  ratio {took / plain:5.1f}  "
                    f"{timing.verdict(took, GOAL_MILLISECONDS)}"
                )
        plain = timing.p95(timing.seconds(lambda: rows(QUEUED), 20))
    print(f"placing {QUEUED}: first {first * 1000:.0f} ms, then p95 {steady * 1000:.0f} ms a round")
    print(f"plain SELECT of all {QUEUED}: p95 {plain * 1000:.1f} ms, ratio {steady / plain:.1f}")


if __name__ == "__main__":
    main(size(60, smoke=2))
