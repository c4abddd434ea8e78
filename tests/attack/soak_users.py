"""The users of the soak: they upload, train, generate and watch, again and again, while processes come and go."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx

from app.core.models import TERMINAL
from tests.faults.runs import SPEC, TEXT, Run
from tests.faults.stack import Installation

SAVE_STEPS = 40
VIEW_SECONDS = 200
KEPT_EACH = 5  # one of so many corpora is kept to the end


class Users:
    """Threads that use the installation until `stop`."""

    def __init__(self, installation: Installation, corpus: str, seed: int) -> None:
        self.installation, self.corpus = installation, corpus
        self.chance = random.Random(seed)
        self.is_over = threading.Event()
        self.runs: dict[str, Run] = {}  # by idempotency key
        self.kept: dict[str, str] = {}  # the SHA-256 of corpora, by ID
        self.counts = Counter[str]()
        self.errors: list[str] = []
        activities = (self.upload, self.train, self.generate, self.watch)
        self.threads = [threading.Thread(target=self._repeat, args=(one,), daemon=True) for one in activities]

    def start(self) -> None:
        """Start the threads."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Let each thread finish what it does, which takes a few minutes at most."""
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def _repeat(self, activity: Callable[[], None]) -> None:
        while not self.is_over.is_set():
            try:
                activity()
            except httpx.HTTPError:
                self.counts["connections lost"] += 1
            except Exception as error:
                self.errors.append(f"{activity.__name__}: {error!r}"[:300])
            self.is_over.wait(1)

    def until(self, look: Callable[[], Any], seconds: float) -> Any:
        """Wait for something true, although requests fail meanwhile; None if it takes longer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                result = look()
                if result:
                    return result
            time.sleep(0.3)
        return None

    # ---- what they do -----------------------------------------------------------------------------------------------

    def upload(self) -> None:
        """Upload a text, wait until it has been parsed, read it, and delete most of them."""
        content = f"{uuid4().hex}\n{TEXT[: self.chance.randrange(1_000, 100_000)]}".encode()
        answer = self.installation.post("/api/v1/corpora", params={"filename": "sheep.txt"}, content=content)
        if answer.status_code != 201:
            self.counts[f"uploads {answer.status_code}"] += 1
            return
        path = f"/api/v1/corpora/{answer.json()['id']}"
        corpus = self.until(lambda: self._if_state(path, "ready", "failed"), 120)
        assert corpus is not None, f"{path} was not parsed in 120 s"
        assert corpus["state"] == "ready", corpus["problems"]
        self.counts["uploads parsed"] += 1
        if self.counts["uploads parsed"] % KEPT_EACH == 0:
            self.kept[corpus["id"]] = corpus["sha256"]
        else:
            self.installation.client.delete(self.installation.url(path))

    def train(self) -> None:
        """Submit a job with an idempotency key until there is an answer, and wait for its end."""
        key = uuid4().hex
        spec = {**SPEC, "corpora": [self.corpus], "save_steps": SAVE_STEPS, "name": key}
        headers = {"Idempotency-Key": key}
        job = self.until(lambda: self._created("/api/v1/jobs", headers, spec), 120)
        assert job is not None, "a job was not accepted in 120 s"
        run = self.runs[key] = Run.of_job(self.installation, job)
        is_over = self.until(lambda: run.state() in TERMINAL, 300)
        assert is_over, f"job {run.id} did not end in 300 s: {run.state()}"
        self.counts[f"jobs {run.state()}"] += 1

    def generate(self) -> None:
        """Ask the newest checkpoint for text."""
        rows = self.installation.get("/api/v1/checkpoints", params={"limit": 1}).json().get("data")
        if rows:
            body = {"checkpoint": rows[0]["id"], "prompt": "A sheep", "max_tokens": 20}
            try:
                answer = self.installation.post("/api/v1/generate", json=body)
            except httpx.TimeoutException:
                self.counts["generations without an answer"] += 1
                return
            code = "" if answer.is_success else f" {answer.json().get('code')}"
            self.counts[f"generations {answer.status_code}{code}"] += 1

    def watch(self) -> None:
        """Follow the newest job to its end, from the last event on after each lost connection."""
        jobs = self.installation.get("/api/v1/jobs", params={"limit": 1}).json().get("data")
        if not jobs or jobs[0]["state"] in TERMINAL:
            return
        path, cursor, deadline = f"/api/v1/jobs/{jobs[0]['id']}/events", "", time.monotonic() + VIEW_SECONDS
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                cursor, is_over = self._follow(path, cursor, deadline)
                if is_over:
                    self.counts["views to the end"] += 1
                    return
            self.counts["views reconnected"] += 1
            time.sleep(0.5)
        raise AssertionError(f"{path} did not show the end of the job in {VIEW_SECONDS} s")

    def _follow(self, path: str, cursor: str, deadline: float) -> tuple[str, bool]:
        """Read a stream until the job is over, the connection or the time; returns the cursor, and whether it is over.

        The ID of an event counts from its end on, the empty line.
        """
        headers = {**self.installation.client.headers, "Last-Event-ID": cursor}
        new, is_over = cursor, False
        with (
            suppress(httpx.HTTPError),
            httpx.stream("GET", self.installation.url(path), headers=headers, timeout=30) as stream,
        ):
            for line in stream.iter_lines():
                new = line[4:] if line.startswith("id: ") else new
                cursor = cursor if line else new
                is_over = is_over or any(f'"state":"{state}"' in line.replace('": "', '":"') for state in TERMINAL)
                if is_over or time.monotonic() > deadline:
                    break
        return cursor, is_over

    def _created(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any] | None:
        answer = self.installation.post(path, headers=headers, json=body)
        return answer.json() if answer.is_success else None

    def _if_state(self, path: str, *states: str) -> dict[str, Any] | None:
        answer = self.installation.get(path)
        row: dict[str, Any] = answer.json() if answer.status_code == 200 else {"state": ""}
        return row if row["state"] in states else None
