"""The table of moves, over all pairs of states and all actors, and that the service obeys it."""

import itertools
from typing import get_args

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from app.core import db
from app.core.models import HELD, STATES, TERMINAL, Job
from app.jobs import service
from app.jobs.lifecycle.state import set_state
from app.jobs.lifecycle.transitions import TRANSITIONS, Actor, allowed
from tests.app.jobs import factories
from tests.users import Person

PAIRS = list(itertools.product(STATES, STATES))


def test_an_ended_job_never_changes_state() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] in TERMINAL]


def test_every_state_is_reachable_and_every_open_one_has_an_exit() -> None:
    assert {to for _from, to in TRANSITIONS} == set(STATES)
    assert {from_state for from_state, _to in TRANSITIONS} == set(STATES) - set(TERMINAL)


def test_only_a_supervisor_reports_that_processes_have_exited() -> None:
    for state in HELD:
        assert not allowed(state, "cancelled", "user")
        assert not allowed(state, "cancelled", "scheduler")


def test_no_state_transitions_to_itself() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] == pair[1]]


@pytest.fixture(scope="module")
def job_id(alice_user: Person) -> str:
    return factories.submitted(alice_user, factories.corpus(alice_user))


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_service_follows_the_transition_table_and_records_events(job_id: str, before: str, after: str) -> None:
    for actor in get_args(Actor):
        with db.transaction() as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))  # the database's own guard sleeps
            job = session.get_one(Job, job_id)
            job.state = before
            events = len(service.history(session, job_id=job_id))
            if not allowed(before, after, actor):
                with pytest.raises(AssertionError, match="may not move"):
                    set_state(session, job, after, actor)
                assert job.state == before
                continue
            set_state(session, job, after, actor, "why", n=1)
            told = service.history(session, job_id=job_id)
            assert (job.state, len(told)) == (after, events + 1)
            last = told[-1]
            assert (last.from_state, last.to_state, last.actor, last.reason) == (before, after, actor, "why")


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_database_rejects_transitions_that_are_not_in_the_table(job_id: str, before: str, after: str) -> None:
    with db.transaction() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(update(Job).where(Job.id == job_id).values(state=before))
    move = update(Job).where(Job.id == job_id).values(state=after)
    if (before, after) in TRANSITIONS or before == after:
        with db.transaction() as session:
            session.execute(move)
        return
    with pytest.raises(DBAPIError, match="may not move"), db.transaction() as session:
        session.execute(move)


def test_the_database_rejects_a_decreasing_fence(job_id: str) -> None:
    with pytest.raises(DBAPIError, match="may not fall"), db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(fence=-1))
