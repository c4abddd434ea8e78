"""Fixtures of the tests of benchmarks."""

import multiprocessing
from multiprocessing.context import ForkServerContext

import pytest


@pytest.fixture(scope="session")
def fork_server() -> ForkServerContext:
    """Starts processes that have imported all libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bench.libraries"])
    return context
