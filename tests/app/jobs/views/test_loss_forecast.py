"""The forecast of a job's loss, as programs and the page get it."""

import json
from statistics import mean
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Job
from app.core.settings import ROOT
from app.jobs.attempts import metrics
from tests.app.jobs import factories
from tests.users import Person

CURVE = json.loads((ROOT / "tests" / "fixtures" / "loss_curves" / "genesis_cosine.json").read_text())["losses"]
FIELDS = {"max_steps": 1200, "warmup_steps": 60}


@pytest.fixture
def job_id(alice_user: Person) -> str:
    """A job of Alice's that has begun."""
    factories.node()
    return factories.started(alice_user, factories.corpus(alice_user), **FIELDS)[0]


def train(job_id: str, first: int, last: int, losses: list[float] = CURVE) -> None:
    points = [metrics.Point(step, step, {"loss": losses[step - 1]}) for step in range(first, last + 1)]
    with db.transaction() as session:
        metrics.append(session, job_id=job_id, fence=1, points=points)


def forecast(client: TestClient, job_id: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/jobs/{job_id}/forecast")
    assert answer.status_code == 200
    return dict(answer.json())


def test_the_forecast_of_a_real_run_leads_to_its_end(job_id: str, alice: TestClient, bob: TestClient) -> None:
    assert forecast(alice, job_id)["steps"] == []
    train(job_id, 1, 487)
    found = forecast(alice, job_id)
    assert (found["steps"][0], found["steps"][-1]) == (480, 1200)
    assert {len(found[name]) for name in found} == {len(found["steps"])}
    assert found["low"][-1] < mean(CURVE[-40:]) < found["high"][-1]
    assert bob.get(f"/api/v1/jobs/{job_id}/forecast").status_code == 404

    train(job_id, 488, 489)
    assert forecast(alice, job_id) == found  # the same for all who look within these steps
    train(job_id, 490, 490)
    assert forecast(alice, job_id)["steps"][0] == 490


def test_a_step_that_was_skipped_does_not_end_the_forecast(job_id: str, alice: TestClient) -> None:
    train(job_id, 1, 299)
    with db.transaction() as session:
        metrics.append(session, job_id=job_id, fence=1, points=[metrics.Point(300, 300, {"loss": "nan"})])
    assert forecast(alice, job_id)["steps"]


def test_a_loss_that_rises_has_no_forecast(job_id: str, alice: TestClient) -> None:
    train(job_id, 1, 200)
    assert forecast(alice, job_id)["steps"]
    train(job_id, 201, 390, CURVE[:200] + CURVE[199::-1])  # all the way up again
    assert forecast(alice, job_id)["steps"] == []


def test_a_job_that_has_ended_has_no_forecast(job_id: str, alice: TestClient) -> None:
    train(job_id, 1, 480)
    assert forecast(alice, job_id)["steps"]
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(state="succeeded"))
    assert forecast(alice, job_id)["steps"] == []
