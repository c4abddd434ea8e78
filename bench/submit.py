"""From submit to the first loss point on the live view, against the same run from a cold `python -m trainer train`.

`PYTHONPATH=. python bench/submit.py [JOBS | --smoke]`. Starts its own installation, waits until the fork server is
ready, submits `tiny` on a shipped corpus repeatedly.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from bench.support import installation
from bench.support.arguments import IS_SMOKE, size
from bench.support.forked import start_module
from tests.waiting import until
from trainer import events
from trainer.run_dir import RunDir

SPEC: dict[str, Any] = {"recipe": "tiny", "corpora": [installation.CORPUS], "max_steps": 3, "warmup_steps": 1}


def live_seconds(client: httpx.Client, number: int) -> tuple[str, float]:
    """Submit a job and wait for its first loss on the stream; answers its id and the seconds that took."""
    begin = time.perf_counter()
    job_id = client.post("/api/v1/jobs", json={**SPEC, "seed": number}).raise_for_status().json()["id"]
    with client.stream("GET", f"/api/v1/jobs/{job_id}/events") as answer:
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                kind = line.partition(":")[2].strip()
            elif line.startswith("data:") and kind in ("points", "curve") and has_loss(line):
                return job_id, time.perf_counter() - begin
    raise AssertionError("the stream ended without a loss")


def has_loss(line: str) -> bool:
    """Whether a data line of the stream brings a loss."""
    return bool(json.loads(line.partition(":")[2])["series"].get("loss", {}).get("steps"))


def cold_seconds(run: Path, directory: Path) -> float:
    """The same spec and inputs through a fresh interpreter; the seconds to its first loss in the journal."""
    source, target = RunDir(run), RunDir(directory)
    target.create(source.spec(), source.inputs(1), 1)
    begin = time.perf_counter()
    process = start_module("trainer", "train", str(directory))

    def first_loss() -> bool:
        assert process.poll() in (None, 0), f"the trainer ended with {process.poll()}"
        points = (event for event, _offset in events.read(target.events_path(1), 0) if event.kind == "points")
        return any("loss" in event.values for event in points)

    until(first_loss, 120, "the first loss")
    seconds = time.perf_counter() - begin
    process.wait()
    return seconds


def measure(client: httpx.Client, data: Path, jobs: int) -> None:
    """Run so many jobs, the last one again from a cold start, and print the figures."""
    times = []
    for number in range(jobs):
        job_id, seconds = live_seconds(client, number)
        path = f"/api/v1/jobs/{job_id}"
        until(lambda path=path: client.get(path).json()["state"] == "succeeded", 60, "its end")
        times.append(seconds)
        print(f"job {number + 1}: {seconds:.2f} s from submit to the first loss on the stream")
    with tempfile.TemporaryDirectory() as scratch:
        cold = cold_seconds(data / "runs" / job_id, Path(scratch) / "cold")
    rest = times[1:] or times
    print(f"first job (trains the tokenizer)   {times[0]:.2f} s")
    print(f"later jobs, median                 {statistics.median(rest):.2f} s (goal: 3 s)")
    print(f"python -m trainer train, cold      {cold:.2f} s")
    print(f"cold / started before              {cold / statistics.median(rest):.1f}")


def main(jobs: int) -> None:
    """Measure on an installation whose fork server is ready."""
    with installation.running() as (client, data):
        installation.wait_until_ready(client, data)
        measure(client, data, jobs)


if __name__ == "__main__":
    if IS_SMOKE:
        SPEC.update(installation.SMALL)
    main(size(5, smoke=1))
