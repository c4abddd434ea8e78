"""F52: a machine whose clock is wrong by an hour loses no lease and shows no negative duration."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import invariants
from tests.faults.runs import Golden, Submit
from tests.faults.stack import Installation
from tests.row_table import Report
from tests.waiting import until

SHIM = Path(__file__).parent / "clock.c"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preload library that shifts the wall clock of a process, but not its monotonic clock."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], check=True)
    return library


@pytest.fixture
def off(installation: Installation, shim: Path) -> Iterator[Callable[[str, int], None]]:
    """Restarts a program with a clock that is wrong by so many seconds."""
    roles: list[str] = []

    def move(role: str, seconds: int) -> None:
        program = installation.programs[role]
        program.environment.update(LD_PRELOAD=str(shim), CLOCK_OFFSET=str(seconds))
        roles.append(role)
        installation.stop_role(role)
        program.start()
        installation.repair()

    yield move
    for role in roles:
        for name in ("LD_PRELOAD", "CLOCK_OFFSET"):
            del installation.programs[role].environment[name]
        installation.stop_role(role)


@pytest.mark.parametrize(
    ("role", "seconds"),
    [
        pytest.param(role, seconds, marks=pytest.mark.row(f"F52-{n}", f"the clock of {role} is {seconds:+d} s off"))
        for n, (role, seconds) in enumerate(
            [("worker", 3600), ("worker", -3600), ("web", 3600), ("web", -3600), ("scheduler", 3600)], start=1
        )
    ],
)
def test_a_wrong_clock_loses_no_lease(
    installation: Installation,
    off: Callable[[str, int], None],
    submit: Submit,
    golden: Golden,
    report: Report,
    role: str,
    seconds: int,
) -> None:
    expected = golden()
    off(role, seconds)
    run = submit()
    run.until("running")
    job = run.job()
    run.end()
    spans = [row[name] for row in (job, run.job()) for name in ("elapsed_seconds", "eta_seconds") if row.get(name)]
    assert all(0 <= span < 300 for span in spans), spans
    assert len(run.attempts()) == 1
    until(lambda: any(node["live"] for node in installation.get("/api/v1/nodes").json()["data"]), what="a live node")
    invariants.check(run, expected)
    report(f"1 attempt, spans {[round(span, 1) for span in spans]}")
