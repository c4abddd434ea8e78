"""A thousand viewers of a running job's page on one web process: how late points arrive, and what they cost others.

`PYTHONPATH=. python bench/viewers.py [VIEWERS | --smoke]`. The viewers are another process; points are appended as a
supervisor does, four times a second. Starts servers of its own and a real web process.
"""

import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx
import psutil

from bench.support import timing, web_process
from bench.support.arguments import IS_SMOKE, size
from tests import users

# isort: split
from app.jobs.lifecycle import notifications
from app.web.server import raise_file_limit
from bench.support import viewer_clients
from bench.support.installation import cpu_seconds
from tests.app.jobs import factories
from trainer import events

VIEWERS = size(1_000, smoke=5)
BATCHES = 4 if IS_SMOKE else 240
PERIOD_SECONDS = 0.25  # of a supervisor's batches
REQUEST_PERIOD_SECONDS = 0.1
POINTS_BEFORE = 10 if IS_SMOKE else 2_000  # of the run when the viewers come
GOAL_DELAY_MILLISECONDS, GOAL_REQUEST_MILLISECONDS, GOAL_MEGABYTES = 1_500, 300, 150


@contextmanager
def viewers(client: httpx.Client, path: str, token: str, count: int) -> Iterator["subprocess.Popen[str]"]:
    """The process of so many viewers, all of whom follow."""
    numbers = (str(number) for number in (count, POINTS_BEFORE + BATCHES))
    command = [sys.executable, viewer_clients.__file__, str(client.base_url.port), path, token, *numbers]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


def append(job_id: str, fence: int, steps: Iterable[int]) -> None:
    """What a supervisor does with a batch of points."""
    others = {"learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_second": 5e4}
    batch = [
        events.PointsEvent(seq=step, at=time.time(), step=step, values={"loss": 10 / step, **others}) for step in steps
    ]
    factories.record(job_id, fence, batch)
    notifications.notify_job(job_id)


def append_live(job_id: str, fence: int) -> dict[int, float]:
    """Append points at a supervisor's pace; the instant of each step, before it was stored."""
    begin, instants = time.monotonic(), {}
    for number in range(BATCHES):
        time.sleep(max(0.0, begin + number * PERIOD_SECONDS - time.monotonic()))
        step = POINTS_BEFORE + 1 + number
        instants[step] = time.monotonic()
        append(job_id, fence, [step])
    return instants


@contextmanager
def other_requests(client: httpx.Client, paths: list[str]) -> Iterator[list[float]]:
    """The seconds of requests that another user of the panel makes meanwhile, in turn."""
    taken, is_over = list[float](), threading.Event()

    def ask() -> None:
        while not is_over.wait(REQUEST_PERIOD_SECONDS):
            path = paths[len(taken) % len(paths)]
            taken.extend(timing.seconds(lambda path=path: client.get(path).raise_for_status(), 1))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield taken
    finally:
        is_over.set()
        thread.join()


def delays(arrivals: dict[str, list[float]], instants: dict[int, float]) -> list[float]:
    """The seconds from each append to its arrival at each viewer. Asserts that each got each once."""
    counts = {step: len(arrivals.get(str(step), ())) for step in instants}
    assert set(counts.values()) == {VIEWERS}, f"how many viewers got each step: {counts}"
    return [at - instant for step, instant in instants.items() for at in arrivals[str(step)]]


def measure(client: httpx.Client, web: psutil.Process, token: str, job_id: str, fence: int) -> None:
    """Print all figures."""
    page = client.get(f"/jobs/{job_id}").raise_for_status().text
    (cursor,) = re.findall('data-cursor="([^"]*)"', page)
    path = f"/jobs/{job_id}/events?after={cursor}"
    paths = ["/jobs", f"/api/v1/jobs/{job_id}", "/", f"/jobs/{job_id}"]
    for other in paths:
        client.get(other).raise_for_status()
    with viewers(client, path, token, 1):
        before = web.memory_info().rss
    with viewers(client, path, token, VIEWERS) as process:
        with other_requests(client, paths) as taken:
            cpu = cpu_seconds([web])
            instants = append_live(job_id, fence)
            cpu = cpu_seconds([web]) - cpu
        megabytes = (web.memory_info().rss - before) / 1e6
        output, _nothing = process.communicate(timeout=60)
    late = [1000 * delay for delay in delays(json.loads(output), instants)]
    latest, slowest = timing.p99(late), 1000 * timing.p99(taken)
    print(f"{VIEWERS} viewers, {BATCHES} batches, {len(late):,} deliveries, none missing or doubled")
    print(
        f"append to arrival: median {statistics.median(late):.0f} ms, p99 {latest:.0f} ms "
        f"{timing.verdict(latest, GOAL_DELAY_MILLISECONDS)}"
    )
    print(f"memory for them: {megabytes:.0f} MB {timing.verdict(megabytes, GOAL_MEGABYTES)}")
    print(
        f"{len(taken)} other requests: median {1000 * statistics.median(taken):.0f} ms, p99 {slowest:.0f} ms "
        f"{timing.verdict(slowest, GOAL_REQUEST_MILLISECONDS)}"
    )
    print(f"processor time of the web process: {cpu / BATCHES / PERIOD_SECONDS:.2f} of a core")


def main() -> None:
    """Start a job, let viewers come, append, print."""
    raise_file_limit()  # also for the processes started here: each viewer is a connection
    with web_process.empty_database():
        alice = users.enter("Alice", "owner")
        job_id, fence = factories.started(alice, factories.corpus(alice), max_steps=10_000)
        append(job_id, fence, range(1, POINTS_BEFORE + 1))
        with web_process.running(alice) as (client, web):
            measure(client, web, alice.token(), job_id, fence)


if __name__ == "__main__":
    main()
