"""A warm parent for the tests of the worker: imports once, so that each attempt starts at once."""

from collections.abc import Iterator

import pytest

from tests.waiting import until
from worker.gang import warm_socket
from worker.node import WarmParent


@pytest.fixture(scope="module")
def warm(database: str) -> Iterator[WarmParent]:
    """The warm parent of this data directory."""
    parent = WarmParent()
    parent.watch()
    try:
        until(warm_socket().exists, 120, "the warm parent's socket")
        yield parent
    finally:
        parent.stop()
