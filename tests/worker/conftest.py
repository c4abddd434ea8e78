"""A fork server for the tests of the worker: imports once, so that each attempt starts at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.users import Person
from tests.waiting import until
from tests.worker.supervised_job import SupervisedJob
from worker.environment import fork_server_socket
from worker.node import ForkServer


@pytest.fixture(scope="module")
def fork_server(database: str) -> Iterator[ForkServer]:
    """The fork server of this data directory."""
    parent = ForkServer()
    parent.watch()
    try:
        until(fork_server_socket().exists, 120, "the fork server's socket")
        yield parent
    finally:
        parent.stop()


@pytest.fixture
def supervised_jobs(alice_user: Person) -> Iterator[list[SupervisedJob]]:
    """Attempts made by a test: none outlives it."""
    jobs: list[SupervisedJob] = []
    yield jobs
    for attempt in jobs:
        attempt.process.kill()
        attempt.process.wait()


@pytest.fixture
def start(supervised_jobs: list[SupervisedJob], alice_user: Person) -> Any:
    """Start a job with a supervisor of its own."""

    def starter(**fields: Any) -> SupervisedJob:
        attempt = SupervisedJob(alice_user, **fields)
        supervised_jobs.append(attempt)
        return attempt

    return starter
