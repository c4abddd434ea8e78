"""A warm parent for the tests of the worker: imports once, so that each attempt starts at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.users import Person
from tests.waiting import until
from tests.worker.attempted import Attempted
from worker.environment import warm_socket
from worker.node import ForkServer


@pytest.fixture(scope="module")
def warm(database: str) -> Iterator[ForkServer]:
    """The warm parent of this data directory."""
    parent = ForkServer()
    parent.watch()
    try:
        until(warm_socket().exists, 120, "the warm parent's socket")
        yield parent
    finally:
        parent.stop()


@pytest.fixture
def made_attempts(alice_user: Person) -> Iterator[list[Attempted]]:
    """Attempts made by a test: none outlives it."""
    made: list[Attempted] = []
    yield made
    for attempt in made:
        attempt.process.kill()
        attempt.process.wait()


@pytest.fixture
def start(made_attempts: list[Attempted], alice_user: Person) -> Any:
    """Start a job with a supervisor of its own."""

    def starter(**given: Any) -> Attempted:
        attempt = Attempted(alice_user, **given)
        made_attempts.append(attempt)
        return attempt

    return starter
