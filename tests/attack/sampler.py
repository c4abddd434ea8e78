"""What others notice of an attack, measured by a process of its own: the time of probes, and of another user's work.

`python -m tests.attack.sampler PORT TOKEN CORPUS job[,parse]` prints a line when it begins, measures until its input
ends, and prints its measurements as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from tests.faults.runs import SPEC

SAMPLE_SECONDS = 0.05
POLL_SECONDS = 0.05
MAX_SECONDS = 30.0  # a probe or wait that takes longer counts as this long
STARTED = ("starting", "running", "succeeded")


@dataclass
class Measurements:
    """Seconds of each probe of GET /livez, and of each job or parse of the other user.

    `waits` last until a node has started a job, or a corpus is ready; `runs` until a job trains.
    """

    probes: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def p99(self) -> float:
        """The 99th percentile of the probes."""
        return sorted(self.probes)[int(0.99 * (len(self.probes) - 1))]


class OtherUser:
    """Measures until `stop` is set."""

    def __init__(self, port: int, token: str, corpus: str) -> None:
        self.port, self.corpus = port, corpus
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=MAX_SECONDS
        )
        self.stop = asyncio.Event()
        self.measurements = Measurements()

    async def probe_forever(self) -> None:
        """Start a probe each SAMPLE_SECONDS, whether or not the earlier ones have been answered."""
        tasks: set[asyncio.Task[None]] = set()
        while not self.stop.is_set():
            task = asyncio.create_task(self.probe())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), SAMPLE_SECONDS)
        await asyncio.gather(*tasks)

    async def probe(self) -> None:
        """Connect anew and ask for /livez."""
        begin = time.monotonic()
        try:
            async with asyncio.timeout(MAX_SECONDS):
                status = await self.exchange()
        except (OSError, TimeoutError) as error:
            status = repr(error).encode()
        seconds = time.monotonic() - begin
        is_ok = b" 200 " in status
        if not is_ok:
            self.measurements.errors.append(f"/livez: {status.decode(errors='replace').strip() or 'no answer'}")
        self.measurements.probes.append(seconds if is_ok else MAX_SECONDS)

    async def exchange(self) -> bytes:
        """The status line of /livez."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return await reader.readline()
        finally:
            writer.close()

    async def work_forever(self, kind: str) -> None:
        """Start one job, or parse one corpus, after the other."""
        work = self.start_job if kind == "job" else self.parse
        while True:
            begin = time.monotonic()
            try:
                async with asyncio.timeout(MAX_SECONDS):
                    finish = await work()
                self.measurements.waits.append(time.monotonic() - begin)
                await finish()
            except (httpx.HTTPError, AssertionError, KeyError, TimeoutError) as error:
                self.measurements.errors.append(f"another user's {kind}: {error!r}")
                self.measurements.waits.append(MAX_SECONDS)
            if self.stop.is_set():
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), 1)

    async def start_job(self) -> Callable[[], Any]:
        """Submit a job and wait until a node has started it; returns what waits for its end."""
        spec = {**SPEC, "corpora": [self.corpus], "max_steps": 2, "warmup_steps": 1, "save_steps": 1_000_000}
        begin = time.monotonic()
        answer = await self.client.post("/api/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        path = f"/api/v1/jobs/{answer.json()['id']}"
        await self.until(path, *STARTED)
        return lambda: self.follow(path, begin)

    async def follow(self, path: str, begin: float) -> None:
        """Wait until a job trains, and for its end."""
        await self.until(path, "running", "succeeded")
        self.measurements.runs.append(time.monotonic() - begin)
        await self.until(path, "succeeded")

    async def parse(self) -> Callable[[], Any]:
        """Upload a corpus and wait until it is ready; returns what deletes it."""
        parameters = {"filename": "small.txt", "name": "small"}
        answer = await self.client.post("/api/v1/corpora", params=parameters, content=b"A line of text.\n" * 100)
        assert answer.status_code == 201, answer.text
        path = f"/api/v1/corpora/{answer.json()['id']}"
        await self.until(path, "ready")
        return lambda: self.client.delete(path)

    async def until(self, path: str, *states: str) -> None:
        """Wait for a state, at most MAX_SECONDS."""
        async with asyncio.timeout(MAX_SECONDS):
            while True:
                row = (await self.client.get(path)).json()
                if row["state"] in states:
                    return
                assert row["state"] not in ("failed", "cancelled"), row
                await asyncio.sleep(POLL_SECONDS)


async def main(port: str, token: str, corpus: str, kinds: str) -> None:
    """Measure until the input ends."""
    sampler = OtherUser(int(port), token, corpus)
    async with asyncio.TaskGroup() as group:
        group.create_task(sampler.probe_forever())
        for kind in kinds.split(","):
            group.create_task(sampler.work_forever(kind))
        sys.stdout.write("begin\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        sampler.stop.set()
    sys.stdout.write(json.dumps(asdict(sampler.measurements)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
