"""Fixtures of the attacks: one installation with its users; and the table that `make attack` writes."""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests import environment
from tests.attack.measuring import COLUMNS, MAX_PROBE_SECONDS, MAX_WAIT_SECONDS
from tests.attack.target import Target
from tests.faults import stack
from tests.row_table import Report, RowTable, reporter

HERE = Path(__file__).parent
SETTINGS = {"NODE_SLOTS": "4"}  # so that a job waits for the panel, not for another job
_table = RowTable(
    "Attacks",
    "attack",
    "attacks had no effect on others",
    "Each attack hits a complete installation. Beside it a process asks for /livez every 50 ms, each time on a new "
    f"connection (p99 at most {MAX_PROBE_SECONDS * 1000:.0f} ms), and another user submits jobs, one after the "
    "other, and in the rows C uploads texts, too: the longest time until a node has started them, or they are parsed, "
    f"is at most {MAX_WAIT_SECONDS:.0f} s; the next column is the longest time until a job trains. "
    "The attacker's processes have a lower priority than those of the installation, as if they ran on another machine. "
    "No response has a status 5xx, except 503 with Retry-After and 507, or lacks the security headers. The memory of "
    "the web process is what it rose by; the last figure is that of the largest other process.",
    COLUMNS,
)
_soak_table = RowTable(
    "Soak",
    "soak",
    "checks passed",
    "A user uploads, trains, generates and watches, again and again; meanwhile a random fault hits the installation "
    "every 20 s, and a random attack begins every 20 s. The seed repeats the choices. In the first quarter web and "
    "worker are killed, too; then they live on. Their memory at the end is compared with that after half of the time, "
    "when their allocators hold what the largest attacks took.",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the attacks, which plain runs of the tests leave out."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("soak") is None:
            item.add_marker(pytest.mark.attack)


@pytest.fixture(scope="session", autouse=True)
def _end_in_order() -> Iterator[None]:
    """Let SIGTERM end the tests as Ctrl-C does, so that no process is left."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """The installation that all attacks hit, one after the other."""
    with stack.running(environment.HOME / "attack", SETTINGS) as installation:
        raise_file_limit()  # after its start: its processes have the usual limit
        target = Target(installation)
        target.prepare()
        yield target


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Adds a value to the table, by default a sentence about the result."""
    return reporter(request.node)


@pytest.fixture
def within() -> Callable[[float], Any]:
    """A context that raises AssertionError after so many seconds, whatever the main thread waits for."""
    return time_limit


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise AssertionError in the main thread after so many seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def raise_file_limit() -> None:
    """Let this process open as many connections as it may."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Add a row to the table for each attack; add the logs to the report of a failed one."""
    outcome = yield
    target = getattr(item, "funcargs", {}).get("target")
    if outcome.failed and isinstance(target, Target):
        outcome.sections.append(("logs of the installation", target.installation.logs()))
    (_table if item.get_closest_marker("soak") is None else _soak_table).add(item, call, outcome)
    return outcome
