"""The curve of a run of ten million points: opened, zoomed, and beside a read of its raw rows from the same run.

`PYTHONPATH=. python bench/long_run.py [POINTS | --smoke] [--peers]`. 20 spikes of one step and 5
NaNs are planted, and must be visible at full width and in every zoom. Starts servers of its own and a real web process.
With --peers TensorBoard, MLflow and trackio do the same with fewer points; they are installed from the package index.
"""

import json
import random
import re
import sys
import time
from typing import Any

import httpx
import psutil
import psycopg

from bench.support import timing, web_process
from bench.support.arguments import IS_SMOKE, size
from tests import users

# isort: split
from app.core.settings import settings
from bench.support import peer_environments, stored_curves
from bench.support.installation import cpu_seconds
from bench.support.stored_curves import Planted
from tests.app.jobs import factories

POINTS = size(10_000_000, smoke=20_000)
OPENS, ZOOMS = (2, 5) if IS_SMOKE else (20, 100)
NUM_SPIKES, NUM_NANS = 20, 5
GOAL = 50  # milliseconds
GOAL_RATIO = 50  # how much slower a read of the raw rows must at least be


def plant(num_points: int) -> Planted:
    """Spikes of different heights and NaNs at random steps."""
    steps = random.Random(14).sample(range(1, num_points + 1), NUM_SPIKES + NUM_NANS)
    spikes = {step: 100.0 + number for number, step in enumerate(steps[:NUM_SPIKES])}
    return Planted(spikes, frozenset(steps[NUM_SPIKES:]))


def open_curve(client: httpx.Client, job_id: str, cursor: str) -> dict[str, Any]:
    """The loss as the stream of the job's page begins with it."""
    with client.stream("GET", f"/jobs/{job_id}/events", params={"after": cursor}) as response:
        event = ""
        for line in response.raise_for_status().iter_lines():
            name, _colon, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "curve":
                curve: dict[str, Any] = json.loads(value)["series"]["loss"]
                return curve
    raise AssertionError("the stream ended without a curve")


def zoom(client: httpx.Client, job_id: str, start: int, end: int) -> dict[str, Any]:
    """The loss as the page asks for it in a window of steps."""
    answer = client.get(f"/api/v1/jobs/{job_id}/metrics", params={"start": start, "end": end, "points": 1500})
    curve: dict[str, Any] = answer.raise_for_status().json()["series"]["loss"]
    return curve


def windows(num_points: int) -> list[tuple[int, int]]:
    """Random windows, from a hundred steps to all."""
    chance, result = random.Random(7), []
    for _ in range(ZOOMS):
        width = int(100 * (num_points / 100) ** chance.random())
        start = chance.randint(1, num_points - width + 1)
        result.append((start, start + width - 1))
    return result


def around(planted: Planted, num_points: int) -> list[tuple[int, int]]:
    """Windows of three widths around each planted step."""
    steps = (*planted.spikes, *planted.nans)
    return [(max(1, step - half), min(num_points, step + half)) for step in steps for half in (300, 10_000, 1_000_000)]


def raw_seconds(job_id: str) -> float:
    """The time to read steps and values in their order with PostgreSQL's fastest way out, binary COPY."""
    query = "SELECT step, value FROM metric_point WHERE job_id = %s AND series = 'loss' ORDER BY step"
    begin = time.perf_counter()
    command = f"COPY ({query}) TO STDOUT (FORMAT BINARY)".encode()
    with (
        psycopg.connect(settings().database_url) as connection,
        connection.cursor() as cursor,
        cursor.copy(command, [job_id]) as copy,
    ):
        num_bytes = sum(len(block) for block in copy)
    assert num_bytes > POINTS * 8
    return time.perf_counter() - begin


def fill(alice: users.Person, planted: Planted) -> str:
    """The ID of the job with the long run. The rows are those that the product writes, which a short run proves."""
    corpus = factories.corpus(alice)
    small, other, job_id = (factories.started(alice, corpus)[0] for _ in range(3))
    stored_curves.store([small], 3_000, plant(3_000))
    stored_curves.check(small, other)
    begin = time.perf_counter()
    stored_curves.store([job_id], POINTS, planted)
    print(f"{POINTS:,} points and their rollups stored in {time.perf_counter() - begin:.0f} s")
    return job_id


def measure_open(client: httpx.Client, web: psutil.Process, job_id: str, planted: Planted) -> float:
    """Print what opening takes and shows; the 95th percentile in milliseconds."""
    page = client.get(f"/jobs/{job_id}").raise_for_status().text
    (cursor,) = re.findall('data-cursor="([^"]*)"', page)
    (first,) = timing.seconds(lambda: open_curve(client, job_id, cursor), 1)
    cpu = cpu_seconds([web])
    opened = 1000 * timing.p95(timing.seconds(lambda: open_curve(client, job_id, cursor), OPENS))
    cpu = 1000 * (cpu_seconds([web]) - cpu) / OPENS
    drawn = 1000 * timing.p95(timing.seconds(lambda: client.get(f"/jobs/{job_id}").raise_for_status(), OPENS))
    hidden = planted.not_shown(open_curve(client, job_id, cursor), 0, POINTS)
    print(f"open: first {1000 * first:.1f} ms, p95 of {OPENS} {opened:.1f} ms {timing.verdict(opened, GOAL)}")
    print(f"  processor time of the web process for each: {cpu:.1f} ms; the page itself: p95 {drawn:.1f} ms")
    print(f"planted points not visible at full width: {len(hidden)} of {NUM_SPIKES + NUM_NANS} (goal: 0)")
    return opened


def measure_zooms(client: httpx.Client, web: psutil.Process, job_id: str, planted: Planted) -> float:
    """Print what zooming takes and shows; the 95th percentile of random windows in milliseconds."""
    taken, hidden, cpu = [], list[int](), cpu_seconds([web])
    for start, end in windows(POINTS):
        begin = time.perf_counter()
        curve = zoom(client, job_id, start, end)
        taken.append(time.perf_counter() - begin)
        hidden += planted.not_shown(curve, start, end)
    cpu = 1000 * (cpu_seconds([web]) - cpu) / ZOOMS
    near = around(planted, POINTS)
    for start, end in near:
        hidden += planted.not_shown(zoom(client, job_id, start, end), start, end)
    zoomed = 1000 * timing.p95(taken)
    print(f"p95 of {ZOOMS} random zooms: {zoomed:.1f} ms {timing.verdict(zoomed, GOAL)}")
    print(f"  processor time of the web process for each: {cpu:.1f} ms")
    print(f"planted points not visible in {ZOOMS + len(near)} zooms: {len(hidden)} (goal: 0)")
    return zoomed


def measure(client: httpx.Client, web: psutil.Process, job_id: str, planted: Planted) -> None:
    """Print all figures of the curve, also in processor time, which other work on the machine disturbs less."""
    slowest = max(work(client, web, job_id, planted) for work in (measure_open, measure_zooms))
    raw = 1000 * raw_seconds(job_id)
    missed = "" if raw >= GOAL_RATIO * slowest else "  MISSED"
    print(f"raw rows by binary COPY: {raw:.0f} ms, {raw / slowest:.0f} times that (goal: {GOAL_RATIO}){missed}")


def measure_peer(tool: str) -> None:
    """Print the same of another tool, with as many points as it stores in a reasonable time."""
    num_points = min(POINTS, peer_environments.MAX_POINTS[tool])
    planted = plant(num_points)
    request = {"num_points": num_points, "spikes": planted.spikes, "nans": sorted(planted.nans)}
    more = {"windows": windows(num_points), "repeats": OPENS}
    figures = peer_environments.measure(tool, {**request, **more})
    opened, zooms = 1000 * timing.p95(figures["open_seconds"]), figures["zoom_seconds"]
    zoomed = f"p95 of {len(zooms)} zooms {1000 * timing.p95(zooms):.1f} ms" if zooms else "no finer points by zooming"
    print(
        f"{peer_environments.PACKAGES[tool]}, {num_points:,} points: stored in {figures['store_seconds']:.0f} s, cold "
        f"{figures['cold_seconds']:.1f} s, open p95 {opened:.1f} ms with {figures['num_points']:,} points, of which "
        f"{figures['spikes']} of {NUM_SPIKES} spikes and {figures['nans']} of {NUM_NANS} NaNs; {zoomed}"
    )


def main() -> None:
    """Fill the database, measure, print."""
    planted = plant(POINTS)
    with web_process.empty_database():
        alice = users.enter("Alice", "owner")
        with web_process.running(alice) as (client, web):
            measure(client, web, fill(alice, planted), planted)
    for tool in peer_environments.PACKAGES if "--peers" in sys.argv else ():
        measure_peer(tool)


if __name__ == "__main__":
    main()
