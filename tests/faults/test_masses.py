"""Thousands of faults: submits while web and Valkey are killed, concurrent claims, random sequences of actions."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete, select

from app.core import db
from app.core.models import Job, JobEvent
from app.launcher.embedded import Address, Valkey
from tests.app.jobs import factories
from tests.app.jobs.concurrency import race_for
from tests.app.jobs.state_machine import Lives, live
from tests.row_table import Report
from tests.users import Person
from tests.waiting import until

ROOT = Path(__file__).parents[2]
CLIENTS = 8


class Panel:
    """A web process with its own Valkey. The test owns the listening socket, as `athanor up` does."""

    def __init__(self, home: Path, listener: socket.socket) -> None:
        self.listener = listener
        self.home = home
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.valkey = Valkey(Address(home / "valkey", home / "sockets"))
        self.web: subprocess.Popen[bytes] | None = None
        self.kills = Counter[str]()

    def start(self) -> None:
        self.valkey.start()
        fd = self.listener.fileno()
        environment = {**os.environ, "REDIS_URL": self.valkey.url}
        with (self.home / "web.log").open("ab") as log:
            command = [sys.executable, "-m", "app.launcher.cli", "web", "--fd", str(fd)]
            self.web = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[fd], stdout=log, stderr=log)
        until(self.answers, 60, "the web process")

    def answers(self) -> bool:
        assert self.web is not None
        assert self.web.poll() is None, (self.home / "web.log").read_text()[-4000:]
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self, part: str) -> None:
        """SIGKILL a process, "web" or "valkey", and restart it."""
        self.kills[part] += 1
        if part == "web":
            assert self.web is not None
            self.web.kill()
            self.web.wait(10)
        else:
            process = self.valkey.process()
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        if part == "valkey":
            self.valkey.start()
        else:
            self.start()

    def stop(self) -> None:
        if self.web is not None:
            self.web.kill()
            self.web.wait(10)
        self.valkey.stop()


@pytest.fixture(autouse=True)
def _no_jobs(database: str) -> None:
    with db.transaction() as session:
        session.execute(delete(Job))


@pytest.fixture
def panel(database: str) -> Iterator[Panel]:
    """A web process on this module's database, in a directory with a short path because of Valkey's socket."""
    with tempfile.TemporaryDirectory(prefix="athanor-submits-") as home, closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        panel = Panel(Path(home), listener)
        try:
            panel.start()
            yield panel
        finally:
            panel.stop()


def submit(panel: Panel, token: str, corpus: str, key: str, outcomes: Counter[str]) -> str:
    """Submit a job with an idempotency key, repeated until it succeeds; returns its ID.

    Counts statuses and the names of connection errors in `outcomes`.
    """
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    body = {"corpora": [corpus], "name": key}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{panel.url}/api/v1/jobs", json=body, headers=headers, timeout=10)
        except httpx.TransportError as error:
            outcomes[type(error).__name__] += 1
            continue
        outcomes[str(answer.status_code)] += 1
        if answer.is_success:
            return str(answer.json()["id"])
    raise AssertionError(f"{key} got no answer: {outcomes}")


@pytest.mark.row("F46-9", "1,000 submits while web and Valkey are killed at random")
def test_a_thousand_submits_under_kills_are_neither_lost_nor_duplicated(
    alice_user: Person, panel: Panel, report: Report
) -> None:
    corpus = factories.corpus(alice_user)
    token = alice_user.token()
    outcomes = Counter[str]()
    is_over = threading.Event()
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)

    def kill_at_random() -> None:
        while not is_over.wait(chance.uniform(0.2, 1.5)):
            panel.kill(chance.choice(["web", "valkey", "valkey"]))

    with ThreadPoolExecutor(CLIENTS + 1) as threads:
        killer = threads.submit(kill_at_random)
        keys = [f"key {n}" for n in range(1_000)]
        try:
            ids = list(threads.map(lambda key: submit(panel, token, corpus, key, outcomes), keys))
        finally:
            is_over.set()
        killer.result()
    with db.transaction() as session:
        ids_by_key = {key: job_id for job_id, key in session.execute(select(Job.id, Job.idempotency_key))}
        events = Counter(session.scalars(select(JobEvent.job_id).where(JobEvent.reason == "submitted")))
    assert ids_by_key == dict(zip(keys, ids, strict=True))
    assert events == Counter(ids)
    assert {status for status in outcomes if status.isdigit()} <= {"200", "201"}
    assert panel.kills["web"] >= 1
    assert panel.kills["valkey"] >= 1
    report(f"none lost, none doubled; kills {dict(panel.kills)}, answers {dict(outcomes)}, seed {seed}")


@pytest.mark.row("F40-9", "10,000 claims by 16 racers")
def test_ten_thousand_concurrent_claims_never_give_two_owners(alice_user: Person, report: Report) -> None:
    factories.node(slots=1_000)
    race = race_for(alice_user, factories.corpus(alice_user), num_claims=10_000, num_jobs=40)
    assert race.won >= 250
    report(f"{race.won} won, 0 double holders")


@pytest.mark.row("F47-9", "2,000 random sequences of verbs against a reference model")
def test_two_thousand_random_job_histories_match_the_reference_model(alice_user: Person, report: Report) -> None:
    report(live(alice_user, sequences=2_000, verbs=12, seed_number=random.SystemRandom().randrange(2**32)))
    assert Lives.num_sequences >= 2_000
