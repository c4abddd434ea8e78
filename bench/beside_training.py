"""What a job loses while its own checkpoints write texts on the same node: its steps without and with readers.

Readers begin before their window, until they have used up what texts may use at once (BURST_SECONDS of
worker/inference/training_share.py): the windows show what texts cost a training for hours.

Run: PYTHONPATH=. python bench/beside_training.py [--smoke]. Windows without readers and with them take turns (A B B A),
and the job trains on all processors throughout. CPU seconds are those of all processes of the installation: beside
other work on the machine, steps per CPU second say what steps per second say on an idle one.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.support import installation
from bench.support.arguments import IS_SMOKE
from bench.support.installation import cpu_seconds, processes_of
from tests.waiting import until

GOAL = 0.95  # of the steps
READERS = 1 if IS_SMOKE else 4
SECONDS = 2.0 if IS_SMOKE else 40.0  # of a window
WINDOWS = "AB" if IS_SMOKE else "ABBA"
NETWORK = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
SPEC: dict[str, Any] = {
    "recipe": "tiny",
    "corpora": [installation.CORPUS],
    "max_steps": 1_000_000,
    "sequence_length": 256,
    "train_batch_size": 8,
    "per_device_batch_size": 8,
    "save_steps": 10 if IS_SMOKE else 100,
    "eval_steps": 1_000_000,
    **(installation.SMALL if IS_SMOKE else {**NETWORK, "num_key_value_heads": 4, "vocab_size": 4000}),
}


class Readers:
    """Users who ask a checkpoint for one text after the other while they are `reading`."""

    def __init__(self, client: httpx.Client, checkpoint_id: str) -> None:
        self._client, self._checkpoint_id = client, checkpoint_id
        self.num_tokens = 0

    def _read(self, is_over: threading.Event, seed: int) -> None:
        body = {"checkpoint": self._checkpoint_id, "prompt": "In the beginning", "seed": seed, "max_tokens": 32}
        while not is_over.is_set():
            self.num_tokens += self._client.post("/api/v1/generate", json=body).raise_for_status().json()["num_tokens"]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read inside the block; leaving it waits for the texts that were begun."""
        is_over = threading.Event()
        with ThreadPoolExecutor(READERS) as threads:
            futures = [threads.submit(self._read, is_over, seed) for seed in range(READERS)]
            try:
                yield
            finally:
                is_over.set()
        for future in futures:
            future.result()


def window(client: httpx.Client, data: Path, job: str) -> tuple[float, float]:
    """The steps of a window per second and per CPU second."""

    def look() -> tuple[float, float, int]:
        cpu = cpu_seconds(processes_of(data))
        return time.perf_counter(), cpu, int(client.get(job).json()["step"])

    begin = look()
    time.sleep(SECONDS)
    end = look()
    steps = end[2] - begin[2]
    return steps / (end[0] - begin[0]), steps / (end[1] - begin[1])


def main() -> None:
    """Train, read, print."""
    rates: dict[str, list[tuple[float, float]]] = {"A": [], "B": []}
    with installation.running() as (client, data):
        installation.wait_until_ready(client, data)
        job_id = client.post("/api/v1/jobs", json=SPEC).raise_for_status().json()["id"]
        job = f"/api/v1/jobs/{job_id}"

        def checkpoints() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = client.get("/api/v1/checkpoints", params={"job": job_id}).json()["data"]
            return rows

        until(checkpoints, 300, "the first checkpoint")
        checkpoint_id = checkpoints()[0]["id"]
        client.post(f"/api/v1/checkpoints/{checkpoint_id}/pin").raise_for_status()  # later ones do not displace it
        readers = Readers(client, checkpoint_id)
        with readers.reading():  # loads the model
            time.sleep(1)
        for kind in WINDOWS:
            if kind == "A":
                rates["A"].append(window(client, data, job))
                continue
            with readers.reading():
                time.sleep(SECONDS / 2)
                readers.num_tokens = 0
                rates["B"].append(window(client, data, job))
        client.post(f"{job}/cancel").raise_for_status()
        until(lambda: client.get(job).json()["state"] == "cancelled", 60, "the end of the job")
    for kind, what in (("A", "without readers"), ("B", f"with {READERS} readers")):
        print(f"{what}: {[f'{wall:.2f}' for wall, _cpu in rates[kind]]} steps/s", flush=True)
    for index, unit in enumerate(("second", "CPU second")):
        before, after = (statistics.median(row[index] for row in rates[kind]) for kind in "AB")
        print(f"steps per {unit}: {before:.2f} without, {after:.2f} with readers: {after / before:.3f} ×, goal {GOAL}")
    print(f"in the last window about {readers.num_tokens / SECONDS:.0f} tokens/s for the readers")


if __name__ == "__main__":
    main()
