"""What must hold after an hour of use, faults and attacks. `make soak` runs it; MINUTES and SEED may be set."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import environment
from tests.attack.conftest import SETTINGS, raise_file_limit
from tests.attack.soak import WATCHED, Record, Soak
from tests.attack.soak_users import Users
from tests.attack.target import Target, list_counts
from tests.faults import invariants, stack
from tests.faults.runs import Run
from tests.faults.stack import SHORT_TIMES
from tests.row_table import Report

MAX_CHANGE = 0.1  # of memory in the second half of the time
INTERVALS = 3  # between checkpoints, that an attempt may repeat when several faults hit it

pytestmark = pytest.mark.soak


@dataclass(frozen=True)
class SoakResult:
    """A soak that is over, with the installation still running, and the weights of an undisturbed job."""

    target: Target
    users: Users
    record: Record
    golden: str


@pytest.fixture(scope="module")
def result() -> Iterator[SoakResult]:
    """The soak itself."""
    minutes = float(os.environ.get("MINUTES") or 60)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
    print(f"\nsoak: {minutes:g} minutes, SEED={seed}")  # noqa: T201 - to repeat it
    with stack.running(environment.HOME / "soak", {**SHORT_TIMES, **SETTINGS}) as installation:
        raise_file_limit()
        target = Target(installation)
        target.prepare()
        assert target.ids
        users = Users(installation, target.ids["corpus_id"], seed)
        users.train()
        golden = next(iter(users.runs.values())).weights()
        record = Record(seed, minutes)
        installation.responses.clear()
        Soak(target, users, record).run()
        yield SoakResult(target, users, record, golden)


@pytest.mark.row("K1", "uploads, jobs, generations and views by a user, all the time")
def test_the_users_of_the_soak_get_their_work_done(result: SoakResult, report: Report) -> None:
    report(f"seed {result.record.seed}; {list_counts(result.users.counts)}")
    assert not result.users.errors, f"{len(result.users.errors)} errors, such as {result.users.errors[0]}"
    for work in ("uploads parsed", "jobs succeeded", "generations 200", "views to the end"):
        assert result.users.counts[work], f"no {work}: {list_counts(result.users.counts)}"


@pytest.mark.row("K2", "a random fault every 20 s")
def test_the_faults_of_the_soak_end_no_other_program(result: SoakResult, report: Report) -> None:
    errors = result.record.fault_errors
    report(f"{result.record.faults.total()}: {list_counts(result.record.faults)}; {len(errors)} could not be injected")
    assert len(errors) <= result.record.faults.total() / 10, errors[0]
    assert not result.record.deaths, f"programs that ended by themselves: {list_counts(result.record.deaths)}"


@pytest.mark.row("K3", "a random attack every 20 s")
def test_the_attacks_of_the_soak_were_made(result: SoakResult, report: Report) -> None:
    """Their own bounds hold in `make attack`: here a fault may hit them as well."""
    errors = result.record.attack_errors
    example = f", such as {errors[0]}" if errors else ""
    report(f"{list_counts(result.record.attacks)}; {len(errors)} without their usual end{example}")
    assert result.record.attacks


@pytest.mark.row("K4", "the invariants I1 to I10 of every job, and the weights of an undisturbed one")
def test_the_invariants_hold_for_every_job_of_the_soak(result: SoakResult, report: Report) -> None:
    runs = list(result.users.runs.values())
    broken = [message for run in runs if (message := broken_invariant(run, result.golden))]
    assert not broken, f"{len(broken)} of {len(runs)} jobs, such as {broken[0]}"
    report(f"{len(runs)} jobs, all with the same weights")


def broken_invariant(run: Run, golden: str) -> str:
    """The first invariant that a job breaks, or an empty text."""
    try:
        invariants.check(run, golden, INTERVALS)
    except (AssertionError, IndexError, ValueError) as error:
        return f"{run.id} {error}"
    return ""


@pytest.mark.row("K5", "I8: no bare 5xx to the user; I10: no secret in logs and files")
def test_no_response_of_the_soak_is_a_bare_error_and_no_secret_is_exposed(result: SoakResult, report: Report) -> None:
    run = list(result.users.runs.values())[-1]
    report(f"{len(run.stack.responses):,} responses")
    invariants.no_response_is_a_bare_error(run)
    invariants.no_secret_is_exposed(run)


@pytest.mark.row("K6", "nothing is lost: jobs, checkpoints and corpora")
def test_nothing_is_lost_in_the_soak(result: SoakResult, report: Report) -> None:
    installation, users = result.target.installation, result.users
    rows = installation.rows("SELECT idempotency_key, count(*) AS number FROM job GROUP BY idempotency_key")
    numbers = {row["idempotency_key"]: row["number"] for row in rows}
    wrong = {key: numbers.get(key, 0) for key in users.runs if numbers.get(key) != 1}
    assert not wrong, f"jobs that exist not once: {wrong}"
    for corpus_id, sha256 in users.kept.items():
        corpus = installation.get(f"/api/v1/corpora/{corpus_id}").raise_for_status().json()
        assert (corpus["state"], corpus["sha256"]) == ("ready", sha256), corpus_id
    missing = [
        run.id for run in users.runs.values() if not [row for row in run.checkpoints() if row["state"] == "ready"]
    ]
    assert not missing, f"jobs without a checkpoint: {missing[:3]}"
    report(f"{len(users.runs)} jobs exist once, {len(users.kept)} corpora are unchanged")


@pytest.mark.row("K7", "the memory of web and worker in the second half of the time")
@pytest.mark.parametrize("role", WATCHED)
def test_the_memory_stays_flat_in_the_soak(result: SoakResult, report: Report, role: str) -> None:
    before, after = result.record.medians(role)
    change = after / before - 1
    largest = max(size for _seconds, size in result.record.memory[role])
    report(f"{role}: {change:+.1%}, from {before / 1e6:.0f} to {after / 1e6:.0f} MB, at most {largest / 1e6:.0f} MB")
    assert abs(change) <= MAX_CHANGE, f"the memory of {role} changed by {change:+.1%}"
