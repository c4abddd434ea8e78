"""Fixtures of the fault tests: one installation, repaired before each test; and the table that `make faults` writes."""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests import environment
from tests.faults import invariants, runs, stack
from tests.faults.runs import Run
from tests.faults.stack import Installation
from tests.waiting import until

TEXT = "".join(f"{n} sheep went up the hill, and {n * 7 % 1013} came down again in the rain.\n" for n in range(3_000))
HERE = Path(__file__).parent
_rows: list[dict[str, Any]] = []
_begin = time.monotonic()


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
    answer = shared_installation.post(
        "/api/v1/corpora", params={"filename": "sheep.txt", "name": "Sheep"}, content=TEXT.encode()
    )
    corpus_id = str(answer.raise_for_status().json()["id"])
    until(
        lambda: shared_installation.get(f"/api/v1/corpora/{corpus_id}").json()["state"] == "ready",
        60,
        "a parsed corpus",
    )
    return corpus_id


@pytest.fixture
def submit(installation: Installation, corpus: str) -> Callable[..., Run]:
    """Submits a job of 120 steps that saves every 20 steps; keyword arguments replace fields of its spec."""
    return lambda **fields: Run(installation, corpus, **fields)


@pytest.fixture(scope="session")
def golden(shared_installation: Installation, corpus: str) -> Callable[..., str]:
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
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a sentence about the result of a test to the table."""

    def add(sentence: str) -> None:
        request.node.user_properties.append(("result", sentence))

    return add


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Add a row to the table for each fault; add the logs to the report of a failed test."""
    outcome = yield
    fixtures = getattr(item, "funcargs", {})
    installation = fixtures.get("installation") or fixtures.get("shared_installation")
    if outcome.failed and isinstance(installation, Installation):
        outcome.sections.append(("logs of the stack", installation.logs()))
    marker = item.get_closest_marker("row")
    if marker is not None and (outcome.when == "call" or outcome.failed):
        results = [str(value) for name, value in item.user_properties if name == "result"]
        error = " ".join(str(call.excinfo and call.excinfo.value).split())[:160]
        _rows.append(
            {
                "row": marker.args[0],
                "fault": marker.args[1],
                "result": "; ".join(results) if outcome.passed else error,
                "seconds": outcome.duration,
                "ok": outcome.passed,
            }
        )
    return outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table to the path in the environment variable FAULTS_TABLE, if it is set."""
    path = os.environ.get("FAULTS_TABLE")
    if path and _rows:
        Path(path).write_text(table(time.monotonic() - _begin))


def table(seconds: float) -> str:
    """The table as a Markdown page. `seconds` is the duration of all tests."""
    passed = sum(row["ok"] for row in _rows)
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, text=True).strip()
    lines = [
        "# Faults",
        "",
        f"{passed} of {len(_rows)} faults survived, {seconds / 60:.1f} minutes, {os.cpu_count()} cores, "
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, commit {commit}. Made by `make faults`.",
        "",
        f"Each fault hits a complete installation while it trains a model of 0.2 million parameters for {runs.STEPS} "
        f"steps, saved every {runs.SAVE_STEPS}. The ten invariants are checked after it (tests/faults/invariants.py).",
        "",
        "| row | fault | result | seconds | |",
        "| --- | --- | --- | ---: | --- |",
    ]
    for row in sorted(_rows, key=lambda row: [int(part) for part in row["row"][1:].split("-")[:1]]):
        mark = "ok" if row["ok"] else "**FAILED**"
        result = row["result"].replace("|", "/")
        lines.append(f"| {row['row']} | {row['fault']} | {result} | {row['seconds']:.1f} | {mark} |")
    return "\n".join(lines) + "\n"
