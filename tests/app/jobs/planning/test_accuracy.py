"""Estimates of jobs against their measurements, and the correction of later estimates."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db
from app.core.json_shapes import Adjustments, JobFacts, Usage
from app.core.models import Attempt, Job, JobEvent
from app.jobs import service
from app.jobs.cluster import nodes
from app.jobs.planning import accuracy
from tests.app.jobs import factories
from tests.users import Person
from trainer.planning.hardware import NodeHardware

START = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _a_machine(database: str) -> None:
    factories.forget_nodes()
    factories.node("ada")


def ended(owner: Person, *, took: float, held: float, **columns: Any) -> str:
    """A job of this machine that took so many times what was planned."""
    job_id = factories.submitted(owner, factories.corpus(owner))
    with db.transaction() as session:
        plan = session.get_one(Job, job_id).facts.planned
        assert plan is not None
        usage = Usage(
            step=20,
            step_seconds=took * plan.step_seconds.value / plan.time_correction,
            peak_bytes=int(held * plan.memory_bytes.value / plan.memory_correction),
        )
        session.add(Attempt(job_id=job_id, fence=1, node="ada"))
        facts = JobFacts(planned=plan, usage=usage)
        session.execute(update(Job).where(Job.id == job_id).values(facts=facts, **columns))
    return job_id


def machine() -> NodeHardware:
    with db.transaction() as session:
        found = nodes.for_a_plan(session, 1)
    assert found is not None
    return found


def test_a_submitted_job_stores_its_plan(alice_user: Person) -> None:
    with db.transaction() as session:
        job = session.get_one(Job, factories.submitted(alice_user, factories.corpus(alice_user)))
        planned = job.facts.planned

    assert planned is not None
    for estimate in (planned.memory_bytes, planned.step_seconds):
        assert 0 < estimate.low <= estimate.value <= estimate.high
    assert accuracy.compared(job.facts, []) == []


def test_the_memory_curve_of_a_job_is_compared_with_its_plan(alice_user: Person, alice: TestClient) -> None:
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    planned = factories.row(job_id).facts.planned
    assert planned is not None
    on_cpu, on_gpu = planned.model_copy(update={"host_bytes": None}), planned.model_copy(update={"host_bytes": 9})
    memory = planned.memory_bytes.value
    assert accuracy.planned_memory(JobFacts(planned=on_cpu)) == {"memory_bytes": memory}
    assert accuracy.planned_memory(JobFacts(planned=on_gpu)) == {"gpu_memory_bytes": memory}
    assert accuracy.planned_memory(JobFacts()) == {}
    chart = re.search(r'data-series="memory_bytes"[^>]*', alice.get(f"/jobs/{job_id}").text)
    assert chart is not None
    assert f'data-level="{memory}"' in chart[0]


def test_later_plans_use_the_median_of_earlier_measurements(alice_user: Person) -> None:
    for took in (1.5, 2.0):
        ended(alice_user, took=took, held=1.1)
    assert machine().num_earlier_jobs == 0  # too few

    ended(alice_user, took=9.0, held=1.2)
    ended(alice_user, took=100.0, held=5.0, adjustments=Adjustments(per_device_batch_size=1))  # not as it was planned
    learned = machine()
    assert learned.num_earlier_jobs == 3
    assert learned.time_correction == pytest.approx(2.0)
    assert learned.memory_correction == pytest.approx(1.1, rel=1e-3)

    with db.transaction() as session:
        resolved = service.resolve_request(
            session, principal=alice_user.principal, request={"corpora": [factories.corpus(alice_user)]}
        )
        notes = resolved.plan.notes
    assert "last jobs of this machine (3), which took 2.0 times the estimated time" in " ".join(
        str(note) for note in notes
    )


def test_the_page_and_rest_compare_plan_and_measurement(alice_user: Person, alice: TestClient) -> None:
    job_id = ended(alice_user, took=1.1, held=9.0)

    page = alice.get(f"/jobs/{job_id}").text
    assert "Estimate and actual" in page
    assert "outside" in page  # the memory
    facts = alice.get(f"/api/v1/jobs/{job_id}").json()["facts"]
    assert facts["usage"]["step"] == 20
    plan = facts["planned"]["step_seconds"]
    assert plan["unit"] == "seconds"
    assert f"{plan['value'] / facts['usage']['step_seconds'] - 1:+.0%}" in page


def test_the_time_before_the_first_step_is_that_from_the_start_of_the_only_attempt(alice_user: Person) -> None:
    facts = factories.row(ended(alice_user, took=1.0, held=1.0)).facts
    assert facts.planned is not None
    assert facts.planned.startup_seconds is not None
    half = timedelta(seconds=facts.planned.startup_seconds.value / 2)
    submitted, claimed, stepped, lost = (
        JobEvent(reason=reason, at=START + wait)
        for reason, wait in (
            ("submitted", timedelta()),
            ("claimed", half),
            ("first_step", 5 * half),
            ("attempt_lost", 2 * half),
        )
    )
    compared = accuracy.compared(facts, [submitted, claimed, stepped])
    assert (len(compared), compared[-1].error, compared[-1].title) == (3, "-50%", "Time before the first step")
    late = JobEvent(reason="first_step", at=START + 3.004 * half)
    assert accuracy.compared(facts, [submitted, claimed, late])[-1].error == "+0%", "0.2 % too short"
    again = [claimed, stepped, lost, claimed, stepped]
    assert accuracy.compared(facts, again) == compared, "a later attempt changes nothing"
    assert len(accuracy.compared(facts, [submitted, claimed, lost, claimed, stepped])) == 2, "the first one was lost"
    before = facts.model_copy(update={"planned": facts.planned.model_copy(update={"startup_seconds": None})})
    assert len(accuracy.compared(before, [claimed, stepped])) == 2, "planned by an earlier version"
