"""Random processes are killed at random steps: the weights at the end are those of an undisturbed run."""

import random

import pytest

from tests.faults import invariants
from tests.faults.runs import SAVE_STEPS, STEPS, Golden, Submit, repeated_steps
from tests.faults.stack import SERVERS, Installation
from tests.row_table import Report

ROLES = ("trainer", "supervisor", "worker", "web", "scheduler", "valkey", "postgres")
KILLS = 25


@pytest.mark.parametrize(
    "num_processes",
    [
        pytest.param(n, marks=pytest.mark.row(f"F1-6 random, {n} ranks", f"{KILLS} kills at random steps, {n} ranks"))
        for n in (1, 2)
    ],
)
def test_a_job_killed_at_random_steps_ends_with_the_same_weights(
    installation: Installation,
    submit: Submit,
    golden: Golden,
    report: Report,
    num_processes: int,
) -> None:
    expected = golden(num_processes)
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where it fails
    chance = random.Random(seed)
    kills = 0
    jobs = 0
    most = 0
    while kills < KILLS:
        run = submit(num_processes=num_processes)
        roles = set()
        # One kill between two checkpoints: three would be a crash loop, which ends the job.
        for start in sorted(chance.sample(range(0, STEPS, SAVE_STEPS), 5)):
            step = start + chance.randrange(1, SAVE_STEPS)
            run.until_step_or_end(step)
            role = "trainer" if chance.random() < 0.5 else chance.choice(ROLES)
            run.kill9(role)
            roles.add(role)
            kills += 1
            if role in installation.programs or role in SERVERS:
                installation.restart(role)
        run.end()
        jobs += 1
        most = max(most, repeated_steps(run.attempts()))
        # A supervisor may die before it publishes a checkpoint: then the attempt resumes from the one before.
        invariants.check(run, expected, intervals=2 if "supervisor" in roles else 1)
        installation.repair()
    report(f"{kills} kills in {jobs} jobs, weights equal; at most {most} steps repeated; seed {seed}")
