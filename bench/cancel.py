"""How soon a cancel or a pause shows and how soon nothing of the job is left, against what is allowed.

`PYTHONPATH=. python bench/cancel.py [JOBS | --smoke]`. Starts its own installation and an endless job of 2 processes
again and again.
"""

import statistics
import time
from typing import Any

import httpx
import psutil

from bench.support import installation
from bench.support.arguments import IS_SMOKE, size
from tests.waiting import until

GOAL_SECONDS = 35.0  # of which a trainer may take 30 to save
SPEC: dict[str, Any] = {"recipe": "tiny", "corpora": [installation.CORPUS], "max_steps": 1_000_000, "num_processes": 2}
SPEC["per_device_batch_size"] = 8


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that ended and was not yet reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def seconds_until(client: httpx.Client, path: str, states: set[str], begin: float) -> float:
    """From `begin` until the job is in one of the states."""
    while client.get(path).json()["state"] not in states:
        time.sleep(0.01)
    return time.perf_counter() - begin


def stop(client: httpx.Client, verb: str) -> tuple[float, float, float]:
    """Start a job and stop it: seconds until the page says so, until it has ended, and until no process is left."""
    job_id = client.post("/api/v1/jobs", json=SPEC).raise_for_status().json()["id"]
    path = f"/api/v1/jobs/{job_id}"
    until(lambda: client.get(path).json()["step"] > 3, 120, "training")
    members = installation.processes_of_job(job_id)
    trainers = installation.trainers_of(job_id)
    assert len(trainers) >= 3
    begin = time.perf_counter()
    client.post(f"{path}/{verb}").raise_for_status()
    doing, done = {"cancel": ("cancelling", "cancelled"), "pause": ("pausing", "paused")}[verb]
    visible = seconds_until(client, path, {doing, done}, begin)
    ended = seconds_until(client, path, {done}, begin)
    left = [p for p in trainers if lives(p)]
    assert not left, f"the job is {done}, but its processes live: {left}"
    until(lambda: not any(map(lives, members)), 30, "the end of the supervisor")
    gone = time.perf_counter() - begin
    if verb == "pause":
        client.post(f"{path}/cancel").raise_for_status()
    return visible, ended, gone


def main(jobs: int) -> None:
    """Stop so many jobs each way, and print the figures."""
    with installation.running() as (client, data):
        installation.wait_until_ready(client, data)
        measure(client, jobs)


def measure(client: httpx.Client, jobs: int) -> None:
    """Print two lines for each way to stop a job."""
    for verb in ("cancel", "pause"):
        rows = [stop(client, verb) for _ in range(jobs)]
        visible, ended, gone = (statistics.median(column) for column in zip(*rows, strict=True))
        worst = max(row[2] for row in rows)
        print(f"{verb}: visible {visible:.2f} s (goal: 1 s), ended {ended:.2f} s, no process left {gone:.2f} s")
        print(f"{verb}: worst {worst:.2f} s; worst / allowed {GOAL_SECONDS:.0f} s: {worst / GOAL_SECONDS:.2f}")


if __name__ == "__main__":
    if IS_SMOKE:
        SPEC.update(installation.SMALL)
    main(size(5, smoke=1))
