"""Jobs side by side: curves over time, best values, different fields; and who may compare what."""

from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.jobs.attempts import metrics
from tests.app.jobs import factories
from tests.users import Person
from trainer import events


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node()
    return factories.corpus(alice_user)


def trained(owner: Person, corpus: str, validation: list[float], **fields: Any) -> str:
    """Create a job that has evaluated at steps 0, 10, 20 and so on; returns its ID."""
    job_id, fence = factories.started(owner, corpus, **fields)
    points = [
        events.PointsEvent(seq=n + 1, at=1000.0 + n, step=10 * n, values={"loss": value + 0.1, "eval_loss": value})
        for n, value in enumerate(validation)
    ]
    factories.record(job_id, fence, points)
    return job_id


def test_best_values_and_different_fields_are_found(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    first = trained(alice_user, corpus, [5.0, 3.0, 4.0], name="first", learning_rate=0.001)
    second = trained(alice_user, corpus, [5.0, 4.0, 3.5], name="second", learning_rate=0.002, train_batch_size=64)
    answer = alice_api.get("/api/v1/jobs/compare", params={"job": [second, first, second]}).json()
    assert [job["id"] for job in answer["jobs"]] == [second, first]
    assert [job["best"]["eval_loss"] for job in answer["jobs"]] == [
        {"value": 3.5, "step": 20},
        {"value": 3.0, "step": 10},
    ]
    fields = {field["name"]: field["values"] for field in answer["fields"]}
    assert fields["learning_rate"] == ["0.002", "0.001"]
    assert fields["train_batch_size"][0] == "64"
    assert not {"name", "corpora", "max_steps"} & set(fields)
    spec = alice_api.get(f"/api/v1/jobs/{second}").json()["spec"]
    assert answer["jobs"][0]["tokens_per_step"] == 64 * spec["sequence_length"]


def test_the_newest_answer_to_the_held_out_prompt_stands_for_a_job(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    samples = [
        events.SampleEvent(seq=n, at=1.0, step=step, split=split, prompt="In", text=f"{split} at {step}")
        for n, (step, split) in enumerate([(0, "validation"), (0, "train"), (10, "validation"), (10, "train")], 1)
    ]
    factories.record(job_id, fence, samples)
    (job,) = alice_api.get("/api/v1/jobs/compare", params={"job": [job_id]}).json()["jobs"]
    assert job["sample"] == {"step": 10, "split": "validation", "prompt": "In", "text": "validation at 10"}


def test_jobs_of_others_are_not_compared(bob_api: TestClient, alice_user: Person, corpus: str) -> None:
    job_id = trained(alice_user, corpus, [5.0])
    answer = bob_api.get("/api/v1/jobs/compare", params={"job": [job_id]})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_more_than_fifty_jobs_are_refused(alice_api: TestClient) -> None:
    answer = alice_api.get("/api/v1/jobs/compare", params={"job": [f"j{n}" for n in range(51)]})
    assert (answer.status_code, answer.json()["code"]) == (422, "jobs_many")


def test_time_of_a_curve_leaves_out_the_pause_between_attempts(alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    with db.transaction() as session:
        for fence, steps, start in ((1, range(1, 4), 1000), (2, range(4, 6), 5000)):
            points = [
                metrics.Point(step, step, {"loss": 1.0}, datetime.fromtimestamp(start + 2 * step, UTC))
                for step in steps
            ]
            metrics.append(session, job_id=job_id, fence=fence, points=points)
        curves = metrics.curves(session, job_id=job_id, window=metrics.Window(0, 10))
        metrics.add_seconds(session, job_id=job_id, curves=curves)
        window = metrics.curves(session, job_id=job_id, window=metrics.Window(5, 10))
        metrics.add_seconds(session, job_id=job_id, curves=window)
    assert curves["loss"].seconds == [0.0, 2.0, 4.0, 4.0, 6.0]
    assert window["loss"].seconds == [6.0]


def test_the_page_marks_the_best_values_and_links_the_jobs(alice: TestClient, alice_user: Person, corpus: str) -> None:
    better = trained(alice_user, corpus, [5.0, 3.0], name="better")
    worse = trained(alice_user, corpus, [5.0, 4.0], name="worse", seed=9)
    text = alice.get("/jobs/compare", params={"job": [better, worse]}).text
    row = text[text.index("Validation loss</th>") :].split("</tr>")[0]
    assert [part.split(">")[1].split()[0] for part in row.split("<td")[1:]] == ["3", "4"]
    assert [" data-best" in part.split(">")[0] for part in row.split("<td")[1:]] == [True, False]
    assert "并排比较" in alice.get("/jobs/compare", headers={"Accept-Language": "zh-CN"}).text
    assert alice.get("/jobs/compare", params={"job": ["nothing"]}).status_code == 404
