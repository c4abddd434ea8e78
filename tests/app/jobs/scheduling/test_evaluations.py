"""Evaluations that begin when a job has succeeded."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core import db
from app.core.models import BackgroundTask, Checkpoint, Corpus, JobEvent
from app.corpora import service as corpora_service
from app.jobs.attempts import attempts
from app.jobs.scheduling import evaluations
from tests.app.jobs import factories
from tests.users import Person


@pytest.fixture
def held_out(alice_user: Person) -> str:
    return factories.corpus(alice_user, name="Held out")


@pytest.fixture
def attempt(alice: TestClient, alice_user: Person, held_out: str) -> Iterator[tuple[str, int]]:
    """A job that runs, with an evaluation at its end: its ID and its fence."""
    factories.node()
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), max_steps=30)
    answer = alice.patch(f"/api/v1/jobs/{job_id}", json={"evaluation_corpora": [held_out]})
    assert answer.json()["evaluation_corpora"] == [held_out]
    yield job_id, fence
    factories.forget_nodes()


def succeed(attempt: tuple[str, int], eval_losses: dict[int, float]) -> dict[int, str]:
    """Let a job succeed with a checkpoint of each loss by step; returns the IDs of the checkpoints by step."""
    job_id, fence = attempt
    ids = {step: factories.saved(job_id, fence, step) for step in eval_losses}
    with db.transaction() as session:
        for step, loss in eval_losses.items():
            session.get_one(Checkpoint, ids[step]).metrics = {"eval_loss": loss}
        attempts.finish(session, job_id=job_id, fence=fence)
    return ids


def start_due() -> list[str]:
    with db.transaction() as session:
        return evaluations.start_due(session)


def tasks(job_checkpoints: dict[int, str]) -> list[BackgroundTask]:
    with db.transaction() as session:
        ids = list(job_checkpoints.values())
        return list(session.scalars(select(BackgroundTask).where(BackgroundTask.checkpoint_id.in_(ids))))


def test_the_best_checkpoint_is_evaluated_once_the_job_has_succeeded(attempt: tuple[str, int], held_out: str) -> None:
    assert start_due() == []  # it runs

    by_step = succeed(attempt, {10: 3.0, 20: 2.0, 30: 2.5})
    assert start_due() == [attempt[0]]
    assert start_due() == []

    (task,) = tasks(by_step)
    assert (task.checkpoint_id, task.options.corpora, task.options.limit) == (by_step[20], [held_out], 200)


def test_what_cannot_be_started_is_noted_in_the_history(
    alice: TestClient, alice_user: Person, attempt: tuple[str, int], held_out: str
) -> None:
    job_id, by_step = attempt[0], succeed(attempt, {30: 3.0})
    with db.transaction() as session:
        corpora_service.delete_corpus(session, principal=alice_user.principal, corpus_id=held_out)

    assert start_due() == [job_id]

    assert tasks(by_step) == []
    with db.transaction() as session:
        event = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq.desc())).first()
        assert event is not None
        assert (event.reason, event.to_state) == ("evaluation_refused", "succeeded")
    assert "The evaluation at its end was not started: This is in the trash" in alice.get(f"/jobs/{job_id}").text


def test_a_job_without_a_checkpoint_has_nothing_to_evaluate(attempt: tuple[str, int]) -> None:
    succeed(attempt, {})

    assert start_due() == [attempt[0]]
    assert start_due() == []


def test_corpora_that_do_not_fit_are_refused_and_the_form_offers_those_that_do(
    alice: TestClient, alice_user: Person, attempt: tuple[str, int], held_out: str
) -> None:
    job_id = attempt[0]
    chats = factories.corpus(alice_user, name="Chats")
    with db.transaction() as session:
        session.get_one(Corpus, chats).kind = "chat"
    refused = alice.patch(f"/api/v1/jobs/{job_id}", json={"evaluation_corpora": [chats]})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "evaluation_corpora")

    page = alice.get(f"/jobs/{job_id}/edit").text
    assert f'value="{held_out}" checked' in page
    assert chats not in page
    alice.post(f"/jobs/{job_id}/edit", data={"name": "Scribe"}, headers={"Origin": "http://localhost"})
    assert factories.row(job_id).evaluation_corpora == []
