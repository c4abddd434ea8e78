"""Fixtures of the faults: one stack for all, repaired before each; and the table that `make faults` writes."""

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
from tests.faults.stack import Stack
from tests.waiting import until

TEXT = "".join(f"{n} sheep went up the hill, and {n * 7 % 1013} came down again in the rain.\n" for n in range(3_000))
HERE = Path(__file__).parent
_rows: list[dict[str, Any]] = []
_begin = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All but the core is left out of a plain run of the tests."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("faults_core") is None:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def shared_installation() -> Iterator[Stack]:
    """The installation that is hurt again and again."""
    with stack.running(environment.HOME / "faults") as made:
        yield made


@pytest.fixture
def installation(shared_installation: Stack) -> Stack:
    """The shared installation, repaired and idle."""
    shared_installation.repair()
    return shared_installation


@pytest.fixture(scope="session")
def corpus(shared_installation: Stack) -> str:
    """An uploaded text, ready."""
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
def submit(installation: Stack, corpus: str) -> Callable[..., Run]:
    """Submit a job of 120 steps that saves every 20; fields given replace its own."""
    return lambda **fields: Run(installation, corpus, **fields)


@pytest.fixture(scope="session")
def golden(shared_installation: Stack, corpus: str) -> Callable[..., str]:
    """The hash of the weights of an undisturbed run, by the number of processes and steps."""
    known: dict[tuple[int, int], str] = {}

    def find(num_processes: int = 1, max_steps: int = runs.STEPS) -> str:
        if (num_processes, max_steps) not in known:
            shared_installation.repair()
            run = Run(shared_installation, corpus, num_processes=num_processes, max_steps=max_steps)
            run.end()
            invariants.check(run)
            known[num_processes, max_steps] = run.weights()
        return known[num_processes, max_steps]

    return find


@pytest.fixture
def saw(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note for the table what was seen."""

    def note(what: str) -> None:
        request.node.user_properties.append(("saw", what))

    return note


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Keep a line of each fault; show the logs where one failed."""
    report = yield
    made = getattr(item, "funcargs", {}).get("installation") or getattr(item, "funcargs", {}).get("shared_installation")
    if report.failed and isinstance(made, Stack):
        report.sections.append(("logs of the stack", made.logs()))
    marker = item.get_closest_marker("row")
    if marker is not None and (report.when == "call" or report.failed):
        said = [str(value) for name, value in item.user_properties if name == "saw"]
        seen = "; ".join(said) if report.passed else " ".join(str(call.excinfo and call.excinfo.value).split())[:160]
        _rows.append(
            {
                "row": marker.args[0],
                "fault": marker.args[1],
                "seen": seen,
                "seconds": report.duration,
                "ok": report.passed,
            }
        )
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, if somebody asked for it."""
    path = os.environ.get("FAULTS_TABLE")
    if path and _rows:
        Path(path).write_text(table(time.monotonic() - _begin))


def table(seconds: float) -> str:
    """The measurement as a page."""
    passed = sum(row["ok"] for row in _rows)
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, text=True).strip()
    lines = [
        "# Faults",
        "",
        f"{passed} of {len(_rows)} faults survived, {seconds / 60:.1f} minutes, {os.cpu_count()} cores, "
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, commit {commit}. Made by `make faults`.",
        "",
        f"Each hurts a whole installation while it trains a model of 0.2 million parameters for {runs.STEPS} steps, "
        f"saved every {runs.SAVE_STEPS}. After each the ten invariants are checked (tests/faults/invariants.py).",
        "",
        "| row | fault | seen | seconds | |",
        "| --- | --- | --- | ---: | --- |",
    ]
    for row in sorted(_rows, key=lambda row: [int(part) for part in row["row"][1:].split("-")[:1]]):
        mark = "ok" if row["ok"] else "**FAILED**"
        seen = row["seen"].replace("|", "/")
        lines.append(f"| {row['row']} | {row['fault']} | {seen} | {row['seconds']:.1f} | {mark} |")
    return "\n".join(lines) + "\n"
