"""Parts of the page of a job: what happened on the time line of its charts, and what it learned."""

import re

import pytest
from fastapi.testclient import TestClient

from app.core import db
from app.jobs.attempts import attempts
from tests.app.jobs import factories
from tests.users import Person
from trainer import events


@pytest.fixture(autouse=True)
def _node() -> None:
    factories.node(slots=4)


def sample(seq: int, step: int, text: str, split: events.SampleSplit = "validation") -> events.SampleEvent:
    return events.SampleEvent(seq=seq, at=1.0, step=step, split=split, prompt=f"A prompt of {split}", text=text)


def marks(page: str) -> list[tuple[str, int]]:
    """The events of the time line, newest first."""
    return [(kind, int(step)) for kind, step in re.findall(r'data-event="(\w+)" data-step="(\d+)"', page)]


def test_a_recovery_is_at_the_step_of_its_reason(alice_api: TestClient, alice_user: Person) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), max_steps=50)
    factories.record(job_id, fence, factories.losses([5.0, 4.0, 3.0]))
    assert marks(alice_api.get(f"/jobs/{job_id}").text) == []
    with db.transaction() as session:
        attempts.fail(session, job_id=job_id, fence=fence, code="oom_gpu", values={"step": 4})
    assert marks(alice_api.get(f"/jobs/{job_id}").text) == [("recovery", 4)]
    assert "the micro-batch is reduced" in alice_api.get(f"/jobs/{job_id}").text.split("data-event")[1]


def test_a_pause_is_where_the_attempt_came_to(alice_api: TestClient, alice_user: Person) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), max_steps=50)
    factories.record(job_id, fence, factories.losses([5.0, 4.0]))
    alice_api.post(f"/api/v1/jobs/{job_id}/pause").raise_for_status()
    with db.transaction() as session:
        attempts.begin_stop(session, job_id=job_id, fence=fence, state="pausing")
        attempts.release(session, job_id=job_id, fence=fence, reason="stopped")
    page = alice_api.get(f"/jobs/{job_id}").text
    assert marks(page) == [("pause", 2)]


def test_a_model_that_is_ready_shows_what_it_wrote_before_and_after(alice_api: TestClient, alice_user: Person) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), max_steps=8, warmup_steps=1)
    written = [sample(1, 0, "zxq"), sample(2, 0, "vvv", "train"), sample(3, 4, "halfway"), sample(4, 8, "in the end")]
    factories.record(job_id, fence, [*written, sample(5, 8, "as taught", "train")])
    factories.record(job_id, fence, factories.losses([1.0], first_step=8, first_seq=6))
    factories.saved(job_id, fence, 8)
    assert "Before and after" not in alice_api.get(f"/jobs/{job_id}").text
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    card = alice_api.get(f"/jobs/{job_id}").text.split('aria-label="Before and after"')[1].split("</section>")[0]
    order = ["A prompt of validation", "Before: step 0", "zxq", "After: step 8", "in the end"]
    order += ["A prompt of train", "vvv", "as taught"]
    assert [card.index(text) for text in order] == sorted(card.index(text) for text in order)
    assert "halfway" not in card
    assert "held out" in card


def test_one_sample_is_no_progress(alice_api: TestClient, alice_user: Person) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), max_steps=8, warmup_steps=1)
    factories.record(job_id, fence, [sample(1, 0, "zxq"), *factories.losses([1.0], first_step=8, first_seq=2)])
    factories.saved(job_id, fence, 8)
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    page = alice_api.get(f"/jobs/{job_id}").text
    assert "Your model is ready" in page
    assert "Before and after" not in page
