"""Fixtures of the fault tests: one installation, repaired before each test; and the table that `make faults` writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import environment
from tests.faults import invariants, runs, stack
from tests.faults.runs import Golden, Run, Submit
from tests.faults.stack import Installation
from tests.row_table import Report, RowTable, reporter

HERE = Path(__file__).parent
_table = RowTable(
    "Faults",
    "faults",
    "faults survived",
    f"Each fault hits a complete installation while it trains a model of 0.2 million parameters for {runs.STEPS} "
    f"steps, saved every {runs.SAVE_STEPS}. The ten invariants are checked after it (tests/faults/invariants.py).",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the fault tests that a plain run of the tests leaves out: all but those marked faults_core."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("faults_core") is None:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def shared_installation() -> Iterator[Installation]:
    """The installation that all fault tests use, one after another."""
    with stack.running(environment.HOME / "faults") as installation:
        yield installation


@pytest.fixture
def installation(shared_installation: Installation) -> Installation:
    """The shared installation, repaired and idle."""
    shared_installation.repair()
    return shared_installation


@pytest.fixture(scope="session")
def corpus(shared_installation: Installation) -> str:
    """The ID of an uploaded text that is ready."""
    return runs.upload(shared_installation, runs.TEXT.encode())


@pytest.fixture
def submit(installation: Installation, corpus: str) -> Submit:
    """Submits a job of 120 steps that saves every 20 steps; keyword arguments replace fields of its spec."""
    return lambda **fields: Run(installation, corpus, **fields)


@pytest.fixture(scope="session")
def golden(shared_installation: Installation, corpus: str) -> Golden:
    """Returns the hash of the weights of an undisturbed run, by the number of processes and steps."""
    hashes: dict[tuple[int, int], str] = {}

    def weights_hash(num_processes: int = 1, max_steps: int = runs.STEPS) -> str:
        if (num_processes, max_steps) not in hashes:
            shared_installation.repair()
            run = Run(shared_installation, corpus, num_processes=num_processes, max_steps=max_steps)
            run.end()
            invariants.check(run)
            hashes[num_processes, max_steps] = run.weights()
        return hashes[num_processes, max_steps]

    return weights_hash


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Adds a sentence about the result of a test to the table."""
    return reporter(request.node)


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Add a row to the table for each fault; add the logs to the report of a failed test."""
    outcome = yield
    fixtures = getattr(item, "funcargs", {})
    installation = fixtures.get("installation") or fixtures.get("shared_installation")
    if outcome.failed and isinstance(installation, Installation):
        outcome.sections.append(("logs of the stack", installation.logs()))
    _table.add(item, call, outcome)
    return outcome
